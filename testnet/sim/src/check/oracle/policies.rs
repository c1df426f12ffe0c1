//! Which policy counts.

use comity_protocol::{
    event::{Act, Field},
    role::Role,
};

use super::{A, At, Oracle};

impl Oracle<'_> {
    fn value(&self, p: At, of: Field) -> Option<u64> {
        match self.history.event(p).act {
            Act::Policy { field, value } if field == of => Some(value),
            _ => None,
        }
    }

    /// Of the standing policies of a field that pass `among` the last: of several that have not seen
    /// each other the one with the highest claim.
    fn last_policy(&self, of: Field, among: impl Fn(At) -> bool) -> Option<u64> {
        let counts = |p: &At| self.value(*p, of).is_some() && among(*p) && self.stands(A::Act(*p));
        let standing: Vec<At> = self.policies.iter().copied().filter(counts).collect();
        let last = standing
            .iter()
            .filter(|p| !standing.iter().any(|q| self.seen(A::Act(**p), A::Act(*q))))
            .max_by_key(|p| {
                let commit = self.history.made[p.0].id;
                (self.history.event(**p).claims, commit, p.1)
            });
        last.and_then(|p| self.value(*p, of))
    }

    /// Who may post, by what an act has seen.
    pub(super) fn posting(&self, y: At) -> Role {
        let value = self.last_policy(Field::Posting, |p| self.seen(A::Act(p), A::Act(y)));
        value
            .and_then(|value| Role::try_from(u8::try_from(value).ok()?).ok())
            .unwrap_or(Role::Member)
    }

    /// Days that contents are kept: the longer of what was last settled and what was last said.
    pub(in crate::check) fn keep_days(&self) -> Option<u64> {
        let settled = self.last_policy(Field::KeepDays, |p| self.is_settled(p))?;
        let said = self.last_policy(Field::KeepDays, |_| true)?;
        (settled > 0 && said > 0).then(|| settled.max(said))
    }
}
