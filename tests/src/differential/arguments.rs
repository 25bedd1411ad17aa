//! Random arguments. Few keys, so that commands meet; odd numbers, because that is where texts and
//! limits differ; no deadline that passes by itself while a round runs.

use crate::random::Random;

use super::templates::ASKED_ABOUT;

/// Keys, a few of them strange. Short, so that a printed context is readable.
const KEYS: &[&[u8]] = &[
    b"k0",
    b"k1",
    b"k2",
    b"k3",
    b"k4",
    b"k5",
    b"n0",
    b"n1",
    b"n2",
    b"f0",
    b"f1",
    b"hello",
    b"hallo",
    b"a*b",
    b"",
    b"\x00\xff\r\n",
    b"{tag}:1",
    b"0123456789012345678901234567890123456789012345678901234567890123456789",
];

const INTEGERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "10",
    "-10",
    "100",
    "9223372036854775807",
    "9223372036854775806",
    "-9223372036854775808",
    "-9223372036854775807",
    "4611686018427387904",
];

const FLOATS: &[&str] = &[
    "0",
    "-0",
    "1",
    "-1",
    "0.1",
    "-0.1",
    "1.5",
    ".5",
    "5.",
    "3.0e3",
    "3.0E3",
    "1e-7",
    "1e17",
    "-1e17",
    "1e18",
    "123456789.123456789",
    "99999999999999999.5",
    "5e-324",
    "1e308",
    "-1e308",
    "1e400",
    "1.7976931348623157e308",
    "inf",
    "-inf",
    "+inf",
    "infinity",
    "nan",
    "0x1p3",
    "0x10",
    " 1",
    "1 ",
    "1e",
    "e1",
    "--1",
    "+1.25",
    "1,5",
    "",
    "0.00000000000000001",
    "0.000000000000000001",
    "3.14159265358979323846264338327950288",
];

/// Arguments that are wrong nearly everywhere. None is a small positive integer: that would be a
/// deadline which passes while the round runs.
const JUNK: &[&[u8]] = &[
    b"",
    b" ",
    b"abc",
    b"NX",
    b"XX",
    b"GET",
    b"EX",
    b"1.5",
    b" 12",
    b"12 ",
    b"+5",
    b"-0",
    b"007",
    b"0x10",
    b"1e3",
    b"99999999999999999999",
    b"-99999999999999999999",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-9223372036854775808",
    b"\xff\xfe",
    b"a\r\nb",
    b"'quoted'",
    b"%s%n",
];

const PATTERNS: &[&str] = &[
    "*",
    "k*",
    "k?",
    "?0",
    "[a-k]*",
    "k[^1]",
    "[kn][0-2]",
    "h?llo",
    "h[ae]llo",
    "h[^e]llo",
    "a\\*b",
    "a*b",
    "",
    "[",
    "[a",
    "[^",
    "\\",
    "*\\",
    "a*a*a*a*a*a*b",
    "**",
    "?",
    "[z-a]*",
    "[\\k]*",
    "{tag}*",
    "nosuch",
];

/// An absolute deadline in the far future, in seconds: the year 3021.
const FAR_FUTURE_SECONDS: i64 = 33_177_117_420;

/// Bytes of a long value that is still ordinary.
const LONG: usize = 3_000;

/// Bytes of a rare big value, beyond any buffer of 64 KiB.
const BIG: usize = 100_000;

/// Offsets at which a value is too long with one more byte: the limit of both, and far beyond it.
const BEYOND_ANY_VALUE: [usize; 3] = [8 * 1024 * 1024, 60_000_000, 600_000_000];

/// A source of arguments.
pub(crate) struct Arguments {
    pub(crate) random: Random,
    deadlines: i64,
}

impl Arguments {
    pub(crate) fn new(seed: u64) -> Arguments {
        Arguments {
            random: Random::new(seed),
            deadlines: 0,
        }
    }

    /// Whether something happens that happens `percent` times out of a hundred.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.random.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.random.below(from.len())]
    }

    /// A number in this range.
    fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = usize::try_from(high - low).unwrap() + 1;
        low + i64::try_from(self.random.below(span)).unwrap()
    }

    pub(crate) fn key(&mut self) -> Vec<u8> {
        // Most commands meet on the first few keys.
        let bound = if self.chance(70) { 11 } else { KEYS.len() };
        KEYS[self.random.below(bound)].to_vec()
    }

    /// Different keys.
    pub(crate) fn keys(&mut self, most: usize) -> Vec<Vec<u8>> {
        let count = 1 + self.random.below(most);
        let mut keys: Vec<Vec<u8>> = (0..count).map(|_| self.key()).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    pub(crate) fn value(&mut self) -> Vec<u8> {
        match self.random.below(100) {
            0..30 => self.integer(),
            30..40 => self.float(),
            40..50 => Vec::new(),
            50..60 => {
                let length = self.random.below(LONG);
                self.bytes(length)
            }
            60..70 => {
                let length = self.random.below(50);
                self.bytes(length)
            }
            70 if self.chance(20) => self.bytes(BIG),
            _ => {
                let number = self.random.below(1000);
                format!("value-{number}").into_bytes()
            }
        }
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let byte = |_| u8::try_from(self.random.below(256)).unwrap();
        (0..length).map(byte).collect()
    }

    pub(crate) fn integer(&mut self) -> Vec<u8> {
        if self.chance(50) {
            return self.between(-1000, 1000).to_string().into_bytes();
        }
        self.pick(INTEGERS).into()
    }

    pub(crate) fn float(&mut self) -> Vec<u8> {
        if self.chance(50) {
            let (whole, part) = (self.between(-100, 100), self.random.below(100_000));
            return format!("{whole}.{part}").into_bytes();
        }
        self.pick(FLOATS).into()
    }

    pub(crate) fn junk(&mut self) -> Vec<u8> {
        self.pick(JUNK).to_vec()
    }

    /// Seconds (or with a factor of 1,000 milliseconds) from now.
    ///
    /// Every deadline of an epoch differs from every other by far more than an epoch takes, so that
    /// `GT` and `LT` have one answer.
    fn relative(&mut self, factor: i64) -> Vec<u8> {
        let odd: &[i64] = &[0, -1, -1_000_000, i64::MAX, i64::MIN, i64::MAX / 1_000];
        if self.chance(25) {
            return self.pick(odd).to_string().into_bytes();
        }
        // 7,919 and 100,003 are primes: all products are different modulo the second.
        self.deadlines += 1;
        let seconds = 1_000 * (1 + self.deadlines * 7_919 % 100_003);
        (seconds * factor).to_string().into_bytes()
    }

    /// Seconds (or milliseconds) since 1970, far from now.
    fn absolute(&mut self, factor: i64) -> Vec<u8> {
        let odd: &[i64] = &[0, 1, -1, 1_000_000_000, i64::MAX, i64::MIN];
        if self.chance(35) {
            return self.pick(odd).to_string().into_bytes();
        }
        let seconds = FAR_FUTURE_SECONDS + self.between(0, 5);
        (seconds * factor).to_string().into_bytes()
    }

    /// The arguments of a template's placeholder or word.
    pub(crate) fn word(&mut self, word: &str, into: &mut Vec<Vec<u8>>) {
        match word {
            "$k" => into.push(self.key()),
            "$k+" => {
                let count = 1 + self.random.below(4);
                into.extend((0..count).map(|_| self.key()));
            }
            "$kv+" => {
                for _ in 0..=self.random.below(3) {
                    into.push(self.key());
                    into.push(self.value());
                }
            }
            "$v" => into.push(self.value()),
            "$i" => into.push(self.integer()),
            "$f" => into.push(self.float()),
            "$n" => into.push(self.index()),
            "$o" => into.push(self.offset()),
            "$s" => into.push(self.relative(1)),
            "$m" => into.push(self.relative(1_000)),
            "$S" => into.push(self.absolute(1)),
            "$M" => into.push(self.absolute(1_000)),
            "$p" => into.push(self.pick(PATTERNS).into()),
            "$d" => into.push(self.database()),
            "$c" => into.push(self.pick(ASKED_ABOUT).into()),
            "conn-$i" => into.push(format!("conn-{}", self.between(0, 9)).into_bytes()),
            literal => into.push(literal.into()),
        }
    }

    fn index(&mut self) -> Vec<u8> {
        if self.chance(80) {
            return self.between(-12, 12).to_string().into_bytes();
        }
        self.pick(INTEGERS).into()
    }

    fn offset(&mut self) -> Vec<u8> {
        let offset = match self.random.below(100) {
            0..85 => self.random.below(40),
            85..95 => self.random.below(20_000),
            95..98 => self.pick(&BEYOND_ANY_VALUE),
            _ => return b"-1".to_vec(),
        };
        offset.to_string().into_bytes()
    }

    fn database(&mut self) -> Vec<u8> {
        let odd: &[&str] = &["15", "16", "-1", "abc", "1.5", "99999999999999999999"];
        if self.chance(15) {
            return self.pick(odd).into();
        }
        self.random.below(3).to_string().into_bytes()
    }
}
