//! What edits, deletions, reactions and state events make of their targets: feeds the documents
//! with the events that stand, in causal order, and says what reads otherwise afterwards.

mod open;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    authority::{Authority, Effects},
    document::{
        Change, ChangeKind, DocumentKind, MessageState, PackDocument, Register, StateDocument,
        StateKey,
    },
    event::{Act, Event},
    history::{Appearance, Graph, NodeIx},
    ids::{EventId, ServerId},
    preference::Setting,
    session::Place,
};

use open::OpenDocuments;

/// Commits of one home's chain in one pack.
const PACK_COMMITS: u64 = 1_024;
/// Bytes of open packs in one conversation; beyond it those used longest ago are closed.
const OPEN_BYTES_MAX: usize = 8 * 1024 * 1024;

type PackId = (ServerId, u64);

/// An event that changes something, whether it stands or not.
#[derive(Debug)]
struct Kept {
    at: Appearance,
    change: Change,
    target: Option<EventId>,
    /// The author's own message is deleted by it, which counts from void appearances too, or a
    /// message by a deletion that is settled: contents are erased.
    own: bool,
}

#[derive(Debug, Default)]
pub(super) struct Documents {
    kept: BTreeMap<EventId, Kept>,
    by_target: BTreeMap<EventId, Vec<EventId>>,
    open: OpenDocuments,
    /// Changes of each pack, open or not.
    of_pack: BTreeMap<PackId, BTreeSet<EventId>>,
    of_state: BTreeSet<EventId>,
    /// The conversation is a user's with himself: its settings are his, and what replaced one is
    /// all that is kept of it.
    of_one: bool,
    /// Values of his settings that stand, by field.
    settings: BTreeMap<String, Vec<EventId>>,
    /// Events whose causal past is not whole yet.
    unready: BTreeSet<EventId>,
    restored: bool,
}

enum Belongs {
    /// In the document of this pack, or of the state.
    In(Option<PackId>),
    /// In none, being void; out of this one if it was there.
    Nowhere(Option<PackId>),
    /// What it needs is not held yet.
    Later,
}

/// What reads otherwise after a commit.
#[derive(Debug, Default)]
pub(super) struct Changed {
    pub(super) touched: Vec<(EventId, MessageState)>,
    pub(super) erase: Vec<EventId>,
    pub(super) state: Vec<(String, Option<EventId>)>,
}

fn place(graph: &Graph, at: Appearance) -> Place {
    let node = graph.node(at.node);
    Place {
        hlc: node.hlc(),
        commit: node.id(),
        index: at.index,
    }
}

/// Whether the first event is causally before the second: within a commit by index.
fn seen(graph: &Graph, kept: &BTreeMap<EventId, Kept>, x: EventId, y: EventId) -> bool {
    let (Some(x), Some(y)) = (kept.get(&x), kept.get(&y)) else {
        return false;
    };
    if x.at.node == y.at.node {
        return x.at.index < y.at.index;
    }
    graph.causally_before(x.at.node, y.at.node)
}

impl Documents {
    /// Those of a user's conversation with himself.
    pub(super) fn of_one() -> Self {
        Self {
            of_one: true,
            ..Self::default()
        }
    }

    /// Bytes of the documents that are open, roughly.
    pub(super) fn open_bytes(&self) -> usize {
        self.open.bytes()
    }

    /// How many packs are open.
    pub(super) fn open_packs(&self) -> usize {
        self.open.len()
    }

    /// Closes all documents: they are caches.
    pub(super) fn close(&mut self) {
        self.open.close();
    }

    /// Takes note of a stored commit; documents are built when they are needed.
    pub(super) fn restore(
        &mut self,
        graph: &Graph,
        authority: &Authority,
        node: NodeIx,
        events: &[(EventId, &Event)],
    ) {
        self.note(graph, authority, node, events);
        self.restored = true;
    }

    /// After a restore: what counts is in its documents, which are built when they are needed. To
    /// be called before the next commit is inserted: what only that one makes ready reads otherwise
    /// from then on, and is told.
    pub(super) fn settle_restored(&mut self, graph: &Graph, authority: &Authority) {
        if !std::mem::take(&mut self.restored) {
            return;
        }
        for id in std::mem::take(&mut self.unready) {
            match self.belongs(graph, authority, &id) {
                Belongs::Later => drop(self.unready.insert(id)),
                Belongs::Nowhere(_) => {}
                Belongs::In(Some(pack)) => {
                    self.of_pack.entry(pack).or_default().insert(id);
                }
                Belongs::In(None) => drop(self.of_state.insert(id)),
            }
        }
        // Erased when they were replaced.
        let all: Vec<_> = self.of_state.iter().copied().collect();
        for replaced in self.replaced(graph, &all) {
            self.of_state.remove(&replaced);
        }
    }

    /// Where an event is to be applied now.
    fn belongs(&self, graph: &Graph, authority: &Authority, id: &EventId) -> Belongs {
        let Some(kept) = self.kept.get(id) else {
            return Belongs::Later;
        };
        let pack = if kept.change.kind.document() == DocumentKind::State {
            None
        } else {
            match kept.target.and_then(|target| pack_of(graph, &target)) {
                Some(pack) => Some(pack),
                None => return Belongs::Later,
            }
        };
        if !self.counts(graph, authority, id) {
            return Belongs::Nowhere(pack);
        }
        // A deletion never waits; the others are applied in causal order.
        let deletion = matches!(kept.change.kind, ChangeKind::Delete { .. });
        if deletion || graph.causally_whole(kept.at.node) {
            Belongs::In(pack)
        } else {
            Belongs::Later
        }
    }

    fn note(
        &mut self,
        graph: &Graph,
        authority: &Authority,
        node: NodeIx,
        events: &[(EventId, &Event)],
    ) {
        for (index, (id, event)) in (0u16..).zip(events) {
            let at = Appearance { node, index };
            let Some(kind) = ChangeKind::of(event, place(graph, at)) else {
                continue;
            };
            // Of several appearances the one that is shown counts.
            if self.kept.contains_key(id) && authority.shown(graph, id) != Some(at) {
                continue;
            }
            let (home, epoch) = (graph.home(node), graph.node(node).epoch());
            let target = event.act.target();
            let own = matches!(event.act, Act::Delete { .. })
                && target.is_some_and(|t| authority.author_of(graph, &t) == Some(event.author));
            let change = Change {
                event: *id,
                home,
                epoch,
                kind,
            };
            if let Some(before) = self.kept.insert(
                *id,
                Kept {
                    at,
                    change,
                    target,
                    own,
                },
            ) {
                self.forget(graph, *id, &before);
            }
            if let Some(target) = target {
                let about = self.by_target.entry(target).or_default();
                if !about.contains(id) {
                    about.push(*id);
                }
            }
            self.unready.insert(*id);
        }
        // Whose message a deletion is about shows once the message is here.
        for (id, event) in events {
            for about in self.by_target.get(id).cloned().unwrap_or_default() {
                if let Some(kept) = self.kept.get_mut(&about)
                    && matches!(kept.change.kind, ChangeKind::Delete { .. })
                {
                    kept.own = authority.author_of(graph, &about) == Some(event.author);
                }
            }
        }
    }

    /// An event counts from another place now.
    fn forget(&mut self, graph: &Graph, id: EventId, before: &Kept) {
        if before.change.kind.document() == DocumentKind::State {
            self.open.state = None;
            self.of_state.remove(&id);
        } else if let Some(pack) = before.target.and_then(|t| pack_of(graph, &t)) {
            self.open.close_pack(pack);
            if let Some(events) = self.of_pack.get_mut(&pack) {
                events.remove(&id);
            }
        }
    }

    /// Another appearance of an event may be the one that is shown now.
    fn count_from(&mut self, graph: &Graph, authority: &Authority, id: EventId) {
        let Some(at) = authority.shown(graph, &id) else {
            return;
        };
        if self.kept.get(&id).is_none_or(|kept| kept.at == at) {
            return;
        }
        let Some(kept) = self.kept.remove(&id) else {
            return;
        };
        self.forget(graph, id, &kept);
        let node = graph.node(at.node);
        let change = Change {
            event: id,
            home: graph.home(at.node),
            epoch: node.epoch(),
            kind: kept.change.kind.clone().at_place(place(graph, at)),
        };
        self.kept.insert(id, Kept { at, change, ..kept });
    }

    fn counts(&self, graph: &Graph, authority: &Authority, id: &EventId) -> bool {
        let Some(kept) = self.kept.get(id) else {
            return false;
        };
        kept.own || authority.shown(graph, id) == Some(kept.at)
    }

    /// Takes a commit's events and the verdicts that it changed.
    pub(super) fn take(
        &mut self,
        graph: &Graph,
        authority: &Authority,
        node: NodeIx,
        events: &[(EventId, &Event)],
        effects: &Effects,
    ) -> Changed {
        self.note(graph, authority, node, events);
        let mut touched = BTreeSet::new();
        let mut state_touched = BTreeSet::new();
        for change in &effects.changed {
            let event = graph.event(change.at);
            if self.kept.contains_key(&event) {
                self.count_from(graph, authority, event);
                self.unready.insert(event);
            }
            // What stands again is shown anew, with whatever was done to it.
            if change.now.stands() && self.by_target.contains_key(&event) {
                touched.insert(event);
            }
        }
        // A message that came after its edits.
        for (id, _) in events {
            if let Some(about) = self.by_target.get(id) {
                self.unready.extend(about.iter().copied());
            }
        }
        let mut replaced = Vec::new();
        let mut groups: BTreeMap<Option<PackId>, (Vec<EventId>, Vec<EventId>)> = BTreeMap::new();
        for id in std::mem::take(&mut self.unready) {
            match self.belongs(graph, authority, &id) {
                Belongs::Later => drop(self.unready.insert(id)),
                Belongs::In(pack) => groups.entry(pack).or_default().0.push(id),
                Belongs::Nowhere(pack) => groups.entry(pack).or_default().1.push(id),
            }
        }
        for (pack, (add, remove)) in groups {
            match pack {
                Some(pack) => touched.extend(self.apply_pack(graph, pack, &add, &remove)),
                None => state_touched.extend(self.apply_state(graph, &add, &remove, &mut replaced)),
            }
        }
        let mut changed = self.changed(graph, touched, &state_touched);
        changed.erase.extend(replaced);
        self.erase_late(events, &mut changed.erase);
        changed
    }

    /// Takes what a root record changed. Deletions of moderators that it settled erase from now on.
    pub(super) fn take_record(
        &mut self,
        graph: &Graph,
        authority: &Authority,
        node: NodeIx,
        effects: &Effects,
    ) -> Changed {
        let mut changed = self.take(graph, authority, node, &[], effects);
        for target in self.settle_deletions(authority) {
            self.erased_by_deletion(target, &mut changed.erase);
        }
        changed
    }

    /// The same for a stored record: what it erased is erased.
    pub(super) fn restore_record(&mut self, authority: &Authority) {
        self.settle_deletions(authority);
        self.restored = true;
    }

    fn settle_deletions(&mut self, authority: &Authority) -> BTreeSet<EventId> {
        let mut targets = BTreeSet::new();
        for kept in self.kept.values_mut() {
            let deletion = matches!(kept.change.kind, ChangeKind::Delete { .. });
            let settled = deletion && !kept.own && authority.is_settled(kept.at);
            if settled && authority.verdict(kept.at).stands() {
                kept.own = true;
                targets.extend(kept.target);
            }
        }
        targets
    }

    /// An edit that comes after the author's deletion changes nothing and may even be void: its
    /// text goes all the same.
    fn erase_late(&self, events: &[(EventId, &Event)], erase: &mut Vec<EventId>) {
        for (id, event) in events {
            if let Act::Edit { target, .. } = event.act
                && self.is_deleted_by_author(&target)
                && !erase.contains(id)
            {
                erase.push(*id);
            }
        }
    }

    fn is_deleted_by_author(&self, target: &EventId) -> bool {
        let about = self.by_target.get(target).map_or(&[][..], Vec::as_slice);
        about
            .iter()
            .any(|id| self.kept.get(id).is_some_and(|kept| kept.own))
    }

    fn apply_pack(
        &mut self,
        graph: &Graph,
        pack: PackId,
        add: &[EventId],
        remove: &[EventId],
    ) -> BTreeSet<EventId> {
        let events = self.of_pack.entry(pack).or_default();
        let gone: Vec<_> = remove
            .iter()
            .filter(|id| events.remove(id))
            .copied()
            .collect();
        let new: Vec<_> = add
            .iter()
            .filter(|id| events.insert(**id))
            .copied()
            .collect();
        let kept = &self.kept;
        let seen = |x: EventId, y: EventId| seen(graph, kept, x, y);
        let mut targets: BTreeSet<EventId> = gone
            .iter()
            .chain(&new)
            .filter_map(|id| kept.get(id)?.target)
            .collect();
        if let Some(document) = self.open.pack(pack) {
            if !gone.is_empty() {
                targets.extend(document.remove(&gone, &seen).touched);
            }
            targets.extend(document.apply(changes(kept, &new), &seen).touched);
            self.open.changed(pack);
        }
        targets
    }

    /// What a pack makes of its messages; one that cannot be read is left out.
    fn states_in(
        &mut self,
        graph: &Graph,
        pack: PackId,
        targets: &[EventId],
    ) -> Vec<(EventId, MessageState)> {
        let (kept, by_target) = (&self.kept, &self.by_target);
        let seen = |x: EventId, y: EventId| seen(graph, kept, x, y);
        let none = BTreeSet::new();
        let of_pack = self.of_pack.get(&pack).unwrap_or(&none);
        if !self.open.wants(pack, targets.len(), of_pack.len()) {
            let state = |target: &EventId| {
                let about = by_target.get(target).into_iter().flatten();
                let about = about.filter(|id| of_pack.contains(id));
                let (document, _) = PackDocument::rebuild(changes(kept, about), &seen);
                Some((*target, document.message(*target).ok()?))
            };
            return targets.iter().filter_map(state).collect();
        }
        if self.open.pack(pack).is_none() {
            let (document, _) = PackDocument::rebuild(changes(kept, of_pack), &seen);
            self.open.open(pack, document);
        }
        let Some(document) = self.open.pack(pack) else {
            return Vec::new();
        };
        let state = |target: &EventId| Some((*target, document.message(*target).ok()?));
        targets.iter().filter_map(state).collect()
    }

    /// Of a user's own settings: the values among these that others have replaced, and those that
    /// these replace. Takes note of those that stand.
    fn replaced(&mut self, graph: &Graph, new: &[EventId]) -> Vec<EventId> {
        if !self.of_one {
            return Vec::new();
        }
        let (kept, mut replaced) = (&self.kept, Vec::new());
        let seen = |x: EventId, y: EventId| seen(graph, kept, x, y);
        for id in new {
            let Some(ChangeKind::State { field, .. }) = kept.get(id).map(|k| &k.change.kind) else {
                continue;
            };
            if !Setting::is_named_by(field) {
                continue;
            }
            let standing = self.settings.entry(field.clone()).or_default();
            if standing.iter().any(|other| seen(*id, *other)) {
                replaced.push(*id);
                continue;
            }
            standing.retain(|other| {
                let stays = *other == *id || !seen(*other, *id);
                if !stays {
                    replaced.push(*other);
                }
                stays
            });
            if !standing.contains(id) {
                standing.push(*id);
            }
        }
        replaced
    }

    fn apply_state(
        &mut self,
        graph: &Graph,
        add: &[EventId],
        remove: &[EventId],
        erase: &mut Vec<EventId>,
    ) -> BTreeSet<StateKey> {
        for standing in self.settings.values_mut() {
            standing.retain(|id| !remove.contains(id));
        }
        let replaced = self.replaced(graph, add);
        let gone: Vec<_> = remove
            .iter()
            .chain(&replaced)
            .filter(|id| self.of_state.remove(id))
            .copied()
            .collect();
        let new: Vec<_> = add
            .iter()
            .filter(|id| !replaced.contains(id) && self.of_state.insert(**id))
            .copied()
            .collect();
        let kept = &self.kept;
        let seen = |x: EventId, y: EventId| seen(graph, kept, x, y);
        let mut touched = BTreeSet::new();
        if let Some(document) = &mut self.open.state {
            if !gone.is_empty() {
                touched.extend(document.remove(&gone, &seen).touched);
            }
            touched.extend(document.apply(changes(kept, &new), &seen).touched);
        } else {
            let (document, applied) = StateDocument::rebuild(changes(kept, &self.of_state), &seen);
            self.open.state = Some(document);
            touched.extend(applied.touched);
            let of = |id: &EventId| StateDocument::key_of(&kept.get(id)?.change.kind);
            touched.extend(gone.iter().filter_map(of));
        }
        erase.extend(replaced);
        touched
    }

    fn changed(
        &mut self,
        graph: &Graph,
        touched: BTreeSet<EventId>,
        state_touched: &BTreeSet<StateKey>,
    ) -> Changed {
        let mut changed = Changed::default();
        let mut by_pack: BTreeMap<PackId, Vec<EventId>> = BTreeMap::new();
        for target in touched {
            if let Some(pack) = pack_of(graph, &target) {
                by_pack.entry(pack).or_default().push(target);
            }
        }
        for (pack, targets) in by_pack {
            for (target, state) in self.states_in(graph, pack, &targets) {
                if state.deleted_by.is_some() {
                    self.erased_by_deletion(target, &mut changed.erase);
                }
                changed.touched.push((target, state));
            }
        }
        if !state_touched.is_empty()
            && let Some(view) = self.open.state.as_ref().and_then(|s| s.state().ok())
        {
            for key in state_touched {
                let (field, register) = match key {
                    StateKey::Field(field) => (field.clone(), view.fields.get(field)),
                    StateKey::Name(user) => (format!("name|{user}"), view.names.get(user)),
                    StateKey::Pin(_) => continue,
                };
                let holds = |r: &&Register| r.value.is_some();
                let value = register.filter(holds).map(|register| register.event);
                changed.state.push((field, value));
            }
        }
        changed
    }

    /// The contents that an author's own deletion erases: the message's and those of all its
    /// edits, standing or not. A moderator's deletion only hides until it is settled.
    fn erased_by_deletion(&self, target: EventId, erase: &mut Vec<EventId>) {
        if !self.is_deleted_by_author(&target) {
            return;
        }
        let about = self.by_target.get(&target).map_or(&[][..], Vec::as_slice);
        erase.push(target);
        let is_edit = |id: &&EventId| {
            let kept = self.kept.get(id);
            kept.is_some_and(|kept| matches!(kept.change.kind, ChangeKind::Edit { .. }))
        };
        erase.extend(about.iter().filter(is_edit));
    }
}

/// The changes of these events.
fn changes<'a>(
    kept: &BTreeMap<EventId, Kept>,
    ids: impl IntoIterator<Item = &'a EventId>,
) -> Vec<Change> {
    let change = |id: &EventId| Some(kept.get(id)?.change.clone());
    ids.into_iter().filter_map(change).collect()
}

/// The pack of a message: of its first appearance in the order, which every server finds alike.
fn pack_of(graph: &Graph, target: &EventId) -> Option<PackId> {
    let first = graph.find_event(target).min_by_key(|at| graph.place(*at))?;
    let node = graph.node(first.node);
    Some((graph.home(first.node), node.seq() / PACK_COMMITS))
}
