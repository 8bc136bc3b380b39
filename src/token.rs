//! stub
/// The key that beacon and monitors share.
#[derive(Debug, Clone)]
pub struct Key;
