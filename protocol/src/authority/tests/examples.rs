//! The worked examples of `spec/04-authority.md`, section 8, in its notation.

use std::collections::BTreeMap;

use super::{
    differential::shuffled,
    oracle::{Broken, Oracle},
    world::{How, NOW, RECORDS, Rng, Server, World, grant, home, is_lower, message, user},
};
use crate::{
    event::{Act, Grant, Target, Tip},
    ids::ServerId,
    role::Role,
};

const NAMES: [char; 8] = ['O', 'A', 'B', 'M', 'U', 'V', 'W', 'N'];

fn rank(name: char) -> Role {
    match name {
        'O' => Role::Owner,
        'A' | 'B' => Role::Admin,
        'M' => Role::Moderator,
        'U' => Role::Member,
        _ => Role::None,
    }
}

fn role(number: u8) -> Role {
    Role::try_from(number).unwrap()
}

fn home_named(name: char) -> char {
    name.to_ascii_lowercase()
}

/// Owner O; A, B admins, M moderator, U member, each granted by O at a home of their own.
pub(super) fn start() -> World {
    let mut world = World::group();
    for name in ['A', 'B', 'M', 'U'] {
        let act = Act::Grant(grant(name, home_named(name), rank(name)));
        let event = world.event(user('O'), Role::Owner, act);
        let how = How {
            prev: world.newest_of(home('o')),
            at_ms: NOW.0,
            ..How::default()
        };
        world.commit(home('o'), &how, vec![event]);
    }
    world
}

struct Step<'a> {
    name: &'a str,
    author: char,
    verb: &'a str,
    rest: Vec<&'a str>,
    seen: u128,
}

struct Script {
    world: World,
    commits: BTreeMap<String, usize>,
}

impl Script {
    fn run(text: &str) -> Self {
        let mut script = Self {
            world: start(),
            commits: BTreeMap::new(),
        };
        let started = script.world.all();
        for line in text.split(';') {
            let line = line.replace(':', " ");
            let words: Vec<&str> = line.split_whitespace().collect();
            let rest = words[3..].to_vec();
            let after = rest.iter().position(|w| *w == "after");
            let after = after.map_or(&[][..], |at| &rest[at + 1..]);
            let known = |(name, i): (&String, &usize)| {
                (after.contains(&name.as_str()) || after == ["all"]).then_some(1u128 << i)
            };
            let seen = script
                .commits
                .iter()
                .filter_map(known)
                .fold(started, |a, b| a | b);
            script.step(&Step {
                name: words[0],
                author: words[1].chars().next().unwrap(),
                verb: words[2],
                rest,
                seen,
            });
        }
        script
    }

    fn step(&mut self, step: &Step<'_>) {
        if step.verb == "records" {
            let owner = step.rest[0].chars().next().unwrap();
            let prev = self.world.newest_of(RECORDS);
            let i = self
                .world
                .record(user(owner), home(home_named(owner)), step.seen, prev);
            self.commits.insert(step.name.to_owned(), i);
            return;
        }
        let word = |i: usize| step.rest.get(i).copied().unwrap_or_default();
        let letter = |i: usize| word(i).chars().next().unwrap_or(' ');
        let at = step.rest.iter().position(|w| *w == "at");
        let mut from = at.map_or(home_named(step.author), |at| letter(at + 1));
        let author = user(step.author);
        let number = step.rest.iter().find_map(|w| w.parse::<u8>().ok());
        let given = role(number.unwrap_or(0));
        let event = match step.verb {
            "posts" => self.world.event(author, Role::Member, message()),
            "joins" => {
                let act = Act::Join {
                    role: Role::Member,
                    home: home(from),
                };
                self.world.event(author, Role::None, act)
            }
            "leaves" => {
                let cut = self.cut(step, step.author, from);
                self.world.event(author, Role::None, Act::Leave { cut })
            }
            "moves" => {
                let cut = self.cut(step, step.author, letter(0));
                from = letter(0);
                let act = Act::Move {
                    home: home(from),
                    n: 1,
                    cut,
                };
                self.world.event(author, Role::None, act)
            }
            "again" => self.world.made[self.commits[word(0)]].events[0].clone(),
            verb => {
                let target = if verb == "lifts" { word(1) } else { word(0) };
                let name = target.chars().next().unwrap();
                let claims = match verb {
                    "grants" if target != "anyone" => role(number.unwrap_or(0) + 1),
                    _ => rank(step.author),
                };
                let lifts = if verb == "lifts" {
                    vec![self.world.made[self.commits[word(0)]].events[0].0]
                } else {
                    vec![]
                };
                let act = if target == "anyone" {
                    Grant {
                        target: Target::Anyone,
                        ..grant('?', '?', given)
                    }
                } else {
                    Grant {
                        ban: verb == "bans",
                        lifts,
                        cut: self.cut(step, name, from),
                        ..grant(name, home_named(name), given)
                    }
                };
                self.world.event(author, claims, Act::Grant(act))
            }
        };
        let prev = self.world.newest_of(home(from));
        if !step.rest.contains(&"fork") {
            let how = How {
                seen: step.seen,
                prev,
                epoch: 0,
                at_ms: NOW.0,
            };
            let i = self.world.commit(home(from), &how, vec![event]);
            self.commits.insert(step.name.to_owned(), i);
            return;
        }
        // A second beginning, tried until its id is the lower one and so wins.
        let chain = std::iter::successors(prev, |i| self.world.made[*i].prev);
        let rival = self.world.made[chain.last().unwrap()].signed().id();
        for at_ms in 0.. {
            let how = How {
                seen: step.seen,
                prev: None,
                epoch: 0,
                at_ms,
            };
            let mut tried = self.world.clone();
            let i = tried.commit(home(from), &how, vec![event.clone()]);
            if is_lower(&tried.made[i], rival) {
                self.world = tried;
                self.commits.insert(step.name.to_owned(), i);
                return;
            }
        }
    }

    /// What the author lets stand: all he has seen of the target's homes, his own chain included.
    fn cut(&self, step: &Step<'_>, target: char, from: char) -> Vec<Tip> {
        if step.rest.contains(&"cut") {
            return vec![];
        }
        let own: Option<usize> = self.world.newest_of(home(from));
        let chain = own.map_or(0, |own| {
            self.world.made[own].past | self.world.made[own].chain
        });
        let seen = self.world.closed(step.seen) | chain;
        self.world.cut(user(target), seen)
    }

    fn holds(&self, expected: &str, broken: Option<Broken>) -> bool {
        let oracle = Oracle::new(&self.world, self.world.all(), broken);
        expected.split_whitespace().all(|e| match e.split_at(1) {
            ("+", name) => oracle.verdict((self.commits[name], 0)),
            ("-", name) => !oracle.verdict((self.commits[name], 0)),
            (name, number) => {
                let number: u8 = number[1..].parse().unwrap();
                oracle.role(user(name.chars().next().unwrap())) == role(number)
            }
        })
    }
}

fn example(script: &str, expected: &str, without: Option<Broken>) {
    let script = Script::run(script);
    let mut rng = Rng(7);
    for _ in 0..20 {
        let mut server = Server::new(&script.world);
        for i in shuffled(&script.world, &mut rng) {
            server.take(&script.world, i);
        }
        server.assert_told();
        for e in expected.split_whitespace() {
            match e.split_at(1) {
                (sign @ ("+" | "-"), name) => {
                    let verdict = server.verdict(script.commits[name], 0);
                    assert_eq!(verdict.stands(), sign == "+", "{name}: {verdict:?}");
                }
                (name, number) => {
                    let held = server.authority.role(&user(name.chars().next().unwrap()));
                    assert_eq!(u8::from(held).to_string(), number[1..], "role of {name}");
                }
            }
        }
    }
    assert!(script.holds(expected, None), "the oracle disagrees");
    if let Some(rule) = without {
        assert!(
            !script.holds(expected, Some(rule)),
            "holds without {rule:?}"
        );
    }
    let homes: Vec<ServerId> = NAMES.iter().map(|n| home(home_named(*n))).collect();
    assert!(
        script
            .world
            .made
            .iter()
            .all(|m| homes.contains(&m.home) || [home('k'), RECORDS].contains(&m.home))
    );
}

macro_rules! examples {
    ($($name:ident: $script:literal => $expected:literal $(, without $rule:ident)?;)*) => {$(
        #[test]
        fn $name() {
            let without = None $(.or(Some(Broken::$rule)))?;
            example($script, $expected, without);
        }
    )*};
}

examples! {
    two_admins_remove_each_other_and_nothing_happens:
        "x: A removes B; y: B removes A" => "A=4 B=4 -x -y";
    demotion_beside_promotion_to_the_same_role_demotes:
        "x: A demotes M 2; y: B grants M 3" => "M=2";
    ban_by_admin_beside_promotion_to_moderator_bans:
        "x: A bans U; y: O grants U 3" => "U=0";
    ban_by_admin_beside_promotion_to_admin_takes_nothing_and_is_shown:
        "x: A bans U; y: O grants U 4" => "U=4 +x";
    ban_by_an_admin_demoted_by_one_who_had_not_seen_it_is_void:
        "x: A bans U; y: O demotes A 3" => "U=2 A=3 -x";
    invite_by_an_admin_demoted_to_a_role_that_suffices_stands:
        "x: A grants V 2; y: O demotes A 3" => "V=2 +x";
    member_by_two_grants_stays_when_one_grantor_is_removed:
        "x: A grants V 2; y: B grants V 2; m: V posts after x y; z: O removes A" => "V=2 -x +y +m",
        without CarriedByTheFirstGrantOnly;
    earlier_messages_of_both_homes_stay_when_a_user_who_moved_is_removed:
        "m: U posts; y: U moves k after m; n: U posts at k after y; z: O removes U after all; l: U posts at u"
        => "U=0 +m +n -l", without CutsOfOneHome;
    move_beside_demotion_leaves_a_member_at_the_new_home_only:
        "y: M moves k; x: A demotes M 2; m: M posts at k after x y; l: M posts at m after x" => "M=2 +m -l";
    leave_beside_a_new_grant_leaves:
        "y: U leaves; x: A grants U 3" => "U=0", without LeaveTakesOnlyWhatItSaw;
    later_grant_brings_back_who_left:
        "y: U leaves; x: A grants U 3; z: A grants U 2 after all" => "U=2 +x +z";
    message_above_the_cut_of_a_removal_stays_hidden_after_a_leave:
        "m: U posts; x: A removes U; y: U leaves after m" => "U=0 -m";
    moderator_does_not_lift_the_owners_ban:
        "x: O bans U; y: M lifts x U 2 after x" => "U=0", without LiftByAnybody;
    ban_lifted_by_an_equal_does_not_end_a_ban_that_saw_neither:
        "x: A bans U; y: B lifts x U 2 after x; z: A bans U" => "U=0 +z";
    lift_by_a_removed_admin_opens_no_door_to_the_banned:
        "d: O grants anyone 2; x: B bans U; y: A lifts x U 0 after x; z: O removes A; j: U joins after all"
        => "U=0 -y", without LiftByAnybody;
    join_through_a_door_closed_meanwhile_is_out_and_one_its_closer_saw_stays:
        "d: A grants anyone 2; j: V joins after d; x: B removes anyone after j; k: W joins after d"
        => "V=2 W=0 +j -k", without ClosedDoorHoldsNobodyBack;
    removed_may_join_again_through_an_open_door_and_banned_may_not:
        "d: O grants anyone 2; x: A removes U; y: A bans V; j: U joins after all; k: V joins after all" => "U=2 V=0";
    removal_of_an_equal_is_void_also_when_that_equal_is_demoted_later:
        "x: A grants N 3; y: M removes N after x; z: B demotes N 2 after x" => "N=2 -y", without TargetMayBeEqual;
    unsettled_ban_is_void_when_its_authors_own_home_forks_it_away:
        "x: A bans U; f: A grants V 2 fork" => "U=2 V=2 -x";
    grant_in_flight_over_a_checkpoint_that_holds_the_removal_stays_removed:
        "x: O removes U; r: O records O after x; y: A grants U 2" => "U=0", without LateHasSeenWhatIsSettled;
    owners_ban_in_flight_over_his_own_checkpoint_bans:
        "r: O records O; x: O bans U" => "U=0 +x";
    settled_invite_of_an_admin_stands_when_he_is_removed_later_with_a_stale_cut:
        "x: A grants V 2; r: O records O after x; z: O removes A cut; y: A grants W 2" => "V=2 W=0 +x -y",
        without NothingIsSettled;
    settled_branch_stands_over_a_fork_below_the_checkpoint:
        "x: A bans U; r: O records O after x; y: A grants W 2 after x; f: A grants V 2 fork"
        => "U=0 V=0 W=2 +y -f", without SettledDecidesNoFork;
    transfer_leaves_the_former_owner_an_admin_and_voids_what_he_did_as_owner_in_flight:
        "m: O posts; x: O removes A; r: O records B" => "O=4 B=5 A=4 +m -x", without FormerOwnerStays;
    promotions_seen_apart_both_stand_and_who_saw_only_the_lower_takes_only_that:
        "x: A grants N 3; y: B grants N 2; z: M removes N after y" => "N=3 +x +y +z";
    ban_and_lift_and_a_second_ban_that_saw_no_lift_bans:
        "x: A bans U; y: A lifts x U 2 after x; z: B bans U after x" => "U=0 +x +y +z";
    ban_and_lift_hold_against_a_branch_that_saw_neither:
        "x: A bans U; y: A lifts x U 2 after x; m: M posts; n: B posts" => "U=2 +m +n";
    backdated_post_above_the_cut_of_a_removal_is_void:
        "m: U posts; x: A removes U after m; l: U posts; k: U posts" => "U=0 +m -l -k";
    concurrent_grants_of_an_admin_demoted_below_what_they_need_are_void:
        "x: A grants V 2; y: O demotes A 2; z: A grants W 3" => "A=2 V=0 W=0 -x -z";
    old_removal_committed_again_after_a_new_grant_takes_nothing:
        "x: A removes U; y: B grants U 2 after x; z: A again x after y" => "U=2 -z", without EventCountsTwice;
}
