//! stub
use std::path::Path;
/// The key that beacon and monitors share.
#[derive(Debug, Clone)]
pub struct Key;
impl Key {
    /// stub
    pub fn load(path: &Path) -> Result<Key, String> {
        std::fs::read(path).map(|_| Key).map_err(|e| e.to_string())
    }
    /// stub
    pub fn load_or_create(path: &Path) -> Result<(Key, bool), String> {
        let created = !path.exists();
        if created {
            std::fs::write(path, "stub").map_err(|e| e.to_string())?;
        }
        Ok((Key, created))
    }
    /// stub
    pub fn ephemeral() -> Key {
        Key
    }
}
