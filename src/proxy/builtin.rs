//! Pages the process answers itself, on `builtin:` routes of the front.
//!
//! The front knows none of what they show: `app` puts a [`View`] behind each name. They may come after the front was made
//! (the status page shows the front), so a page that is not there yet is simply not found.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;

use crate::{
    config::lb::Builtin,
    telemetry::view::{Page, View},
};

/// The views behind the names.
#[derive(Default)]
pub struct Pages(RwLock<HashMap<Builtin, Arc<dyn View>>>);

impl Pages {
    /// Puts a view behind a name.
    pub fn set(&self, builtin: Builtin, view: Arc<dyn View>) {
        self.0.write().insert(builtin, view);
    }

    /// Returns the page as it is at this moment.
    pub(super) fn render(&self, builtin: Builtin) -> Option<Page> {
        let view = self.0.read().get(&builtin).cloned();
        view.map(|view| view.render())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_found_once_its_view_is_there() {
        let pages = Pages::default();
        assert!(pages.render(Builtin::Live).is_none());
        pages.set(Builtin::Live, Arc::new(|| Page::json(&serde_json::json!({}))));
        assert_eq!(pages.render(Builtin::Live).map(|page| page.status), Some(200));
    }
}
