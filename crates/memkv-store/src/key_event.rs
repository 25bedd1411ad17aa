//! Key events: what happened to which key, for subscribers, in the order of the log.
//!
//! The classes that are announced are part of the state, so that all nodes announce the same. The events
//! are not: they belong to this node, the caller takes them after `apply`, and the store never reads them
//! again. Invariant: while no event is wanted, or no class is on, none is made and no key is copied.

use bytes::Bytes;

/// Which events are announced, and on which channels: a set of letters, as in Redis's
/// `notify-keyspace-events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyEventClasses(u16);

/// Every letter that Redis 7.0 has but `A`, in the order in which it prints them.
const LETTERS: [(u8, u16); 14] = [
    (b'g', KeyEventClasses::GENERIC),
    (b'$', KeyEventClasses::STRING),
    (b'l', 1 << 4),
    (b's', 1 << 5),
    (b'h', 1 << 6),
    (b'z', 1 << 7),
    (b'x', KeyEventClasses::EXPIRED),
    (b'e', KeyEventClasses::EVICTED),
    (b't', 1 << 10),
    (b'd', 1 << 11),
    (b'n', KeyEventClasses::NEW),
    (b'K', KeyEventClasses::KEYSPACE),
    (b'E', KeyEventClasses::KEYEVENT),
    (b'm', 1 << 13),
];

impl KeyEventClasses {
    /// `K`: on `__keyspace@DB__:KEY`.
    const KEYSPACE: u16 = 1;
    /// `E`: on `__keyevent@DB__:EVENT`.
    const KEYEVENT: u16 = 1 << 1;
    /// `g`: commands of any type, such as DEL, EXPIRE, RENAME.
    pub(crate) const GENERIC: u16 = 1 << 2;
    /// `$`: commands of strings.
    pub(crate) const STRING: u16 = 1 << 3;
    /// `x`: a key's deadline has removed it.
    pub(crate) const EXPIRED: u16 = 1 << 8;
    /// `e`: a key was removed to make room.
    pub(crate) const EVICTED: u16 = 1 << 9;
    /// `n`: a new key exists.
    pub(crate) const NEW: u16 = 1 << 12;
    /// `A`: all but `K`, `E`, `n` and `m`.
    const ALL: u16 = 0b1111_1111_1100;

    /// Reads the letters; `None` if one is not Redis's. Letters of types that memkv does not have, and of
    /// events that never happen in it, are accepted without effect.
    pub fn parse(letters: &[u8]) -> Option<KeyEventClasses> {
        let bits_of = |letter: &u8| match letter {
            b'A' => Some(KeyEventClasses::ALL),
            _ => {
                let mut known = LETTERS.iter();
                known
                    .find(|(known, _)| known == letter)
                    .map(|(_, bit)| *bit)
            }
        };
        let mut letters = letters.iter();
        let bits = letters.try_fold(0, |all, letter| Some(all | bits_of(letter)?));
        bits.map(KeyEventClasses)
    }

    /// The letters as Redis 7.0 prints them.
    pub fn letters(self) -> String {
        let is_all = self.0 & KeyEventClasses::ALL == KeyEventClasses::ALL;
        let own = LETTERS.iter().filter(|(letter, bit)| {
            // Behind an `A` Redis prints none of the classes, not even `n`.
            let is_class = !matches!(letter, b'K' | b'E' | b'm');
            self.0 & bit != 0 && !(is_all && is_class)
        });
        let letters = is_all.then_some(b'A').into_iter();
        letters
            .chain(own.map(|(letter, _)| *letter))
            .map(char::from)
            .collect()
    }

    pub(crate) fn bits(self) -> u16 {
        self.0
    }

    /// `None` for bits that have no letter.
    pub(crate) fn from_bits(bits: u16) -> Option<KeyEventClasses> {
        let known = LETTERS.iter().fold(0, |known, (_, bit)| known | bit);
        (bits & !known == 0).then_some(KeyEventClasses(bits))
    }
}

/// An event of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEvent {
    /// The key's database.
    pub database: u8,
    /// The key.
    pub key: Bytes,
    /// The event, by Redis's name.
    pub event: &'static str,
    /// Whether it goes to the key's channel.
    pub on_keyspace: bool,
    /// Whether it goes to the event's channel.
    pub on_keyevent: bool,
}

/// The setting, and the events noted since they were last taken.
#[derive(Debug, Default)]
pub(crate) struct KeyEvents {
    /// The cluster's setting; without one each node uses its configuration.
    setting: Option<KeyEventClasses>,
    /// This node's configuration.
    configured: KeyEventClasses,
    /// Whether events are wanted.
    wanted: bool,
    /// The classes that are noted now.
    active: u16,
    noted: Vec<KeyEvent>,
}

impl KeyEvents {
    pub(crate) fn setting(&self) -> Option<KeyEventClasses> {
        self.setting
    }

    pub(crate) fn set(&mut self, setting: Option<KeyEventClasses>) {
        self.setting = setting;
        self.refresh();
    }

    pub(crate) fn listen(&mut self, wanted: bool, configured: KeyEventClasses) {
        if (self.wanted, self.configured) != (wanted, configured) {
            (self.wanted, self.configured) = (wanted, configured);
            self.refresh();
        }
    }

    fn refresh(&mut self) {
        let classes = self.setting.unwrap_or(self.configured).0;
        let has_channel = classes & (KeyEventClasses::KEYSPACE | KeyEventClasses::KEYEVENT) != 0;
        self.active = if self.wanted && has_channel {
            classes
        } else {
            0
        };
    }

    /// Notes an event of this class, if it is announced.
    pub(crate) fn note(&mut self, class: u16, event: &'static str, database: u8, key: &[u8]) {
        if self.active & class != 0 {
            self.noted.push(KeyEvent {
                database,
                key: Bytes::copy_from_slice(key),
                event,
                on_keyspace: self.active & KeyEventClasses::KEYSPACE != 0,
                on_keyevent: self.active & KeyEventClasses::KEYEVENT != 0,
            });
        }
    }

    pub(crate) fn take(&mut self) -> Vec<KeyEvent> {
        std::mem::take(&mut self.noted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_read_and_printed_as_redis_does() {
        // The answers of redis-server 7.0.15 to CONFIG GET after CONFIG SET.
        for (set, got) in [
            ("", ""),
            ("KEA", "AKE"),
            ("AKEn", "AKE"),
            ("KEg$xn", "g$xnKE"),
            ("Elmd", "ldEm"),
            ("KEAm", "AKEm"),
            ("KE$lshzxetdgn", "AKE"),
            ("g", "g"),
            ("mn", "nm"),
        ] {
            let classes = KeyEventClasses::parse(set.as_bytes()).unwrap();
            assert_eq!(classes.letters(), got, "{set}");
            assert_eq!(KeyEventClasses::from_bits(classes.bits()), Some(classes));
        }
        assert_eq!(KeyEventClasses::parse(b"KEq"), None);
        assert_eq!(KeyEventClasses::from_bits(1 << 14), None);
    }

    #[test]
    fn nothing_is_noted_without_a_channel_a_class_and_a_wish_for_events() {
        let classes = |letters: &str| KeyEventClasses::parse(letters.as_bytes()).unwrap();
        let noted = |wanted, configured, setting: Option<&str>| {
            let mut events = KeyEvents::default();
            events.listen(wanted, classes(configured));
            events.set(setting.map(classes));
            events.note(KeyEventClasses::STRING, "set", 0, b"k");
            events.take().len()
        };
        assert_eq!(noted(true, "K$", None), 1);
        assert_eq!(noted(false, "K$", None), 0);
        assert_eq!(noted(true, "$", None), 0);
        assert_eq!(noted(true, "KEx", None), 0);
        assert_eq!(noted(true, "", Some("EA")), 1);
        assert_eq!(noted(true, "KEA", Some("")), 0);
    }
}
