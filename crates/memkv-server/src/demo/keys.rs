//! Keys from a terminal, one by one. Never reads an input that is not a terminal of ours.

use std::io::{self, IsTerminal, Read};

use rustix::process::getpgrp;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use tokio::sync::mpsc;

/// A terminal that gives each key at once. Its old mode comes back when this is dropped.
pub(super) struct Keys {
    saved: Termios,
    keys: mpsc::UnboundedReceiver<u8>,
}

impl Keys {
    /// None if the input is no terminal, or the demo is in its background: touching the terminal
    /// there would stop the process.
    pub(super) fn open() -> Option<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() || tcgetpgrp(&stdin).ok()? != getpgrp() {
            return None;
        }
        let saved = tcgetattr(&stdin).ok()?;
        let mut each_key = saved.clone();
        // Ctrl-C stays a signal.
        each_key
            .local_modes
            .remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Now, &each_key).ok()?;
        let (sender, keys) = mpsc::unbounded_channel();
        // A read cannot be cancelled, so it has a thread that ends with the process.
        std::thread::spawn(move || {
            for key in io::stdin().lock().bytes().map_while(Result::ok) {
                if sender.send(key).is_err() {
                    break;
                }
            }
        });
        Some(Self { saved, keys })
    }

    /// The next key; `None` when the terminal is gone.
    pub(super) async fn next(&mut self) -> Option<u8> {
        self.keys.recv().await
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.saved);
    }
}
