//! The engine's answer to a proposal: one call of a closure, always.

use super::TypeConfig;

/// Hands the engine's answer to a closure; `None` if the engine died without one.
pub(crate) struct ProposalResponder<T: Send + 'static>(Option<Box<dyn FnOnce(Option<T>) + Send>>);

impl<T: Send + 'static> ProposalResponder<T> {
    pub(super) fn new(answer: impl FnOnce(Option<T>) + Send + 'static) -> Self {
        Self(Some(Box::new(answer)))
    }
}

impl<T: Send + 'static> openraft::raft::responder::Responder<TypeConfig, T>
    for ProposalResponder<T>
{
    fn on_complete(mut self, result: T) {
        if let Some(answer) = self.0.take() {
            answer(Some(result));
        }
    }
}

impl<T: Send + 'static> Drop for ProposalResponder<T> {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer(None);
        }
    }
}
