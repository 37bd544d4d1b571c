//! `max_user_connections`: a budget for each user whose name server connections bear, whatever their databases.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use crate::pool::{database::Running, lease::Budget, rules};

/// The budgets of the users that have a pool.
#[derive(Default)]
pub(super) struct UserBudgets(Mutex<HashMap<Arc<str>, Weak<Budget>>>);

impl UserBudgets {
    /// Returns a user's budget, with the limit in force.
    pub(super) fn of(&self, user: &Arc<str>, running: &Running) -> Arc<Budget> {
        let limit = rules::user_limit(&running.pool, running.users.get(user));
        let mut budgets = self.0.lock();
        if let Some(budget) = budgets.get(user).and_then(Weak::upgrade) {
            return budget;
        }
        budgets.retain(|_, budget| budget.strong_count() > 0);
        let budget = Budget::new(limit);
        budgets.insert(user.clone(), Arc::downgrade(&budget));
        budget
    }

    /// Takes changed limits in.
    pub(super) fn apply(&self, running: &Running) {
        let budgets: Vec<_> =
            self.0.lock().iter().filter_map(|(user, budget)| Some((user.clone(), budget.upgrade()?))).collect();
        for (user, budget) in budgets {
            budget.set_limit(rules::user_limit(&running.pool, running.users.get(&user)));
        }
    }
}
