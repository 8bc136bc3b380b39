//! Other spellings of a path: what some servers take for it, and some rules do not.

/// A path and its query, as typed.
pub(super) struct Path<'a> {
    path: &'a str,
    query: &'a str,
}

impl<'a> Path<'a> {
    /// Of a rooted path.
    pub(super) fn of(typed: &'a str) -> Path<'a> {
        let (path, query) = typed.split_at(typed.find('?').unwrap_or(typed.len()));
        Path { path, query }
    }

    fn with(&self, path: String) -> Option<String> {
        Some(path + self.query)
    }

    /// The path without its first slash.
    fn rest(&self) -> &'a str {
        self.path.strip_prefix('/').unwrap_or(self.path)
    }

    /// The path without a slash at its end.
    fn stem(&self) -> &'a str {
        self.path.strip_suffix('/').unwrap_or(self.path)
    }

    /// `//admin`
    pub(super) fn double_slash(&self) -> Option<String> {
        self.with(format!("/{}", self.path))
    }

    /// `/ADMIN`
    pub(super) fn upper_case(&self) -> Option<String> {
        self.with(self.path.to_ascii_uppercase())
    }

    /// The path behind something that leads back to the root: `/./admin`, `/x/../admin`.
    pub(super) fn after(&self, way_back: &str) -> Option<String> {
        self.with(format!("{way_back}{}", self.path))
    }

    /// `/x/..%2fadmin`
    pub(super) fn encoded_up(&self) -> Option<String> {
        self.with(format!("/x/..%2f{}", self.rest()))
    }

    /// `/%61dmin`: the first letter that is none of an encoded byte.
    pub(super) fn encoded_letter(&self) -> Option<String> {
        let encoded = |at: usize| [1, 2].iter().any(|back| at.checked_sub(*back).and_then(|b| self.path.as_bytes().get(b)) == Some(&b'%'));
        let (at, letter) = self.path.char_indices().find(|(at, c)| c.is_ascii_alphabetic() && !encoded(*at))?;
        let (before, behind) = (self.path.get(..at)?, self.path.get(at + 1..)?);
        self.with(format!("{before}%{:02x}{behind}", u32::from(letter)))
    }

    /// Something behind the path: `/admin;x`, `/admin%00`, `/admin/.`.
    pub(super) fn before(&self, more: &str) -> Option<String> {
        let stem = if more.starts_with('/') || self.stem().is_empty() { self.stem() } else { self.path };
        let root = if stem.is_empty() && !more.starts_with('/') { "/" } else { "" };
        self.with(format!("{root}{stem}{more}"))
    }

    /// `/admin/`, or without it where it is there.
    pub(super) fn slash_end(&self) -> Option<String> {
        match self.path.strip_suffix('/') {
            Some("") => None,
            Some(stem) => self.with(stem.to_string()),
            None => self.with(format!("{}/", self.path)),
        }
    }

    /// `\admin`
    pub(super) fn backslash(&self) -> Option<String> {
        self.with(format!("\\{}", self.rest()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_one_by_one() {
        let admin = Path::of("/admin?x=/y");
        let root = Path::of("/");
        let folder = Path::of("/admin/");
        for (made, expected) in [
            (admin.double_slash(), "//admin?x=/y"),
            (root.double_slash(), "//"),
            (admin.upper_case(), "/ADMIN?x=/y"),
            (admin.after("/."), "/./admin?x=/y"),
            (admin.after("/x/.."), "/x/../admin?x=/y"),
            (root.after("/x/.."), "/x/../"),
            (admin.encoded_up(), "/x/..%2fadmin?x=/y"),
            (admin.encoded_letter(), "/%61dmin?x=/y"),
            (admin.before("%2f"), "/admin%2f?x=/y"),
            (admin.before(";x"), "/admin;x?x=/y"),
            (folder.before(";x"), "/admin/;x"),
            (root.before(";x"), "/;x"),
            (admin.before("/."), "/admin/.?x=/y"),
            (folder.before("/."), "/admin/."),
            (root.before("/."), "/."),
            (admin.slash_end(), "/admin/?x=/y"),
            (folder.slash_end(), "/admin"),
            (admin.backslash(), "\\admin?x=/y"),
        ] {
            assert_eq!(made.as_deref(), Some(expected));
        }
        assert_eq!(root.encoded_letter(), None);
        assert_eq!(Path::of("/%c3%a4dmin").encoded_letter().as_deref(), Some("/%c3%a4%64min"));
        assert_eq!(root.slash_end(), None);
    }
}
