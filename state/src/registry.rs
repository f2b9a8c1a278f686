//! The list of sections and commands, with their numbers. A new kind of state is registered here and nowhere else.
//!
//! A number is for ever: it is in logs and checkpoints. What is retired leaves its number behind, unused.

use crate::bounds::OutOfBounds;
use crate::codec::CodecError;
use crate::format1::operations::{DeleteGroupV1, DeleteTopicV1, LockQueuesV1, PutTopicV1};
use crate::framing;
use crate::operation::{self, Apply, Operation, Outcome, Unmet};
use crate::section::{Has, Levels, NextOffsets, Section};
use crate::sections::features::{Features, RaiseLevel};
use crate::sections::groups::{ConsumerGroups, CreateGroup, DeleteGroup, PutGroup};
use crate::sections::locks::{ExpireLocks, LockQueues, Locks, UnlockQueues};
use crate::sections::min_offsets::MinOffsets;
#[cfg(feature = "next-level")]
use crate::sections::next_level::{Count, Counted};
use crate::sections::offset_commits::CommitOffsets;
use crate::sections::offsets::Offsets;
use crate::sections::popped::{
    AckPopped, CarryPopped, ChangePopped, PopAgain, PopMessages, Popped, RevivePopped, SetRequestMode,
};
use crate::sections::sent_back::{NoteSentBack, RaiseFloor, SentBack};
use crate::sections::timers::{CarryTimers, FireTimers, RecallTimer, Timers};
use crate::sections::topics::{CreateTopic, DeleteTopic, PutTopic, Topics};
use crate::sections::transactions::{
    CarryTransactions, EndTransaction, NoteChecks, ResumeTransaction, Transactions,
};

/// The version that everything is written in so far. A later one must not be written before the group's feature level says
/// that all nodes read it (`features.I1`): let the writers ask for the level before this changes.
const FIRST_VERSION: u16 = 1;

macro_rules! registry {
    (
        sections { $($(#[$on:meta])* $section:ident: $Section:ident = $tag:literal,)* }
        commands { $($(#[$with:meta])* $Command:ident = $kind:literal,)* }
    ) => {
        /// The replicated state as of the last applied record. A copy costs little.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct State {
            $($(#[$on])* pub(crate) $section: $Section,)*
        }

        $($(#[$on])* impl Has<$Section> for State {
            fn section(&self) -> &$Section {
                &self.$section
            }

            fn section_mut(&mut self) -> &mut $Section {
                &mut self.$section
            }
        })*

        $($(#[$on])* const _: () = assert!($Section::TAG == $tag && $Section::VERSION == FIRST_VERSION);)*
        $($(#[$with])* const _: () =
            assert!(<$Command as Operation>::KIND == $kind && <$Command as Operation>::VERSION == FIRST_VERSION);)*

        impl State {
            /// Writes all sections, by tag ascending.
            pub fn encode(&self, writer: &mut framing::Writer) -> Result<(), CodecError> {
                $($(#[$on])* if self.level() >= $Section::SINCE {
                    writer.section($tag, $Section::VERSION, |out| self.$section.encode(out))?;
                })*
                Ok(())
            }

            /// Takes a section that was read, if it is one of the state's.
            pub fn decode_section(&mut self, framed: &framing::Framed<'_>) -> Result<(), CodecError> {
                match framed.tag {
                    $($(#[$on])* $tag => self.$section = $Section::decode(framed.version, framed.body)?,)*
                    _ => return Err(framed.unknown()),
                }
                Ok(())
            }

            /// The first section that a state of this level has, and that is not among these tags.
            pub fn missing(&self, tags: &[u16]) -> Option<u16> {
                $($(#[$on])* if self.level() >= $Section::SINCE && !tags.contains(&$tag) {
                    return Some($tag);
                })*
                None
            }

            /// Lets `change` change all sections but those that depend on order.
            pub(crate) fn change_but_for_ordered<T>(&mut self, change: impl FnOnce(&mut State) -> T) -> T {
                $($(#[$on])* let $section = $Section::DEPENDS_ON_ORDER.then(|| self.$section.clone());)*
                let changed = change(self);
                $($(#[$on])* if let Some(before) = $section {
                    self.$section = before;
                })*
                changed
            }

            /// Bytes that [`State::encode`] writes. Looks at all of the state.
            pub fn encoded_bytes(&self) -> u64 {
                let mut bytes = 0;
                $($(#[$on])* if self.level() >= $Section::SINCE {
                    bytes += framing::HEADER_BYTES as u64 + self.$section.encoded_bytes();
                })*
                bytes
            }
        }

        impl Levels for State {
            fn bytes_between(&self, from: u16, to: u16) -> u64 {
                let mut bytes = 0;
                $($(#[$on])* if from < $Section::SINCE && $Section::SINCE <= to {
                    bytes += framing::HEADER_BYTES as u64 + self.$section.encoded_bytes();
                })*
                bytes
            }
        }

        /// A change of the replicated state.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each is documented where it is defined")]
        pub enum Command {
            $($(#[$with])* $Command($Command),)*
        }

        $($(#[$with])* impl From<$Command> for Command {
            fn from(command: $Command) -> Command {
                Command::$Command(command)
            }
        })*

        impl Command {
            /// The numbers of all commands that this build knows.
            pub const KINDS: &'static [u16] = &[$($(#[$with])* $kind,)*];

            /// The command's number.
            pub fn kind(&self) -> u16 {
                match self { $($(#[$with])* Command::$Command(_) => $kind,)* }
            }

            /// The group's feature level from which on it may be proposed (`features.I1`).
            pub fn since(&self) -> u16 {
                match self { $($(#[$with])* Command::$Command(_) => $Command::SINCE,)* }
            }

            /// The command as a record's payload.
            pub fn encode(&self) -> Vec<u8> {
                match self { $($(#[$with])* Command::$Command(command) => operation::encode(command),)* }
            }

            pub(crate) fn decode_kind(kind: u16, version: u16, body: &[u8]) -> Result<Command, CodecError> {
                match kind {
                    $($(#[$with])* $kind => <$Command as Operation>::decode(version, body).map(Command::$Command),)*
                    _ => Err(CodecError::Newer { what: "command", number: kind, version }),
                }
            }

            /// Refuses a longer name or id, or more entries, than any client needs (`bounds.I1`).
            pub fn check_bounds(&self) -> Result<(), OutOfBounds> {
                match self { $($(#[$with])* Command::$Command(command) => command.check_bounds(),)* }
            }

            /// The topic whose messages it may delete.
            pub fn deletes_in(&self) -> Option<String> {
                match self { $($(#[$with])* Command::$Command(command) => command.deletes_in(),)* }
            }

            /// Whether it changes nothing but sections that depend on order.
            pub fn depends_on_order(&self) -> bool {
                match self { $($(#[$with])* Command::$Command(_) => $Command::DEPENDS_ON_ORDER,)* }
            }

            /// Whether it carries a reading of the lease clock.
            pub fn is_stamped(&self) -> bool {
                match self { $($(#[$with])* Command::$Command(_) => $Command::IS_STAMPED,)* }
            }

            /// What must hold where it is applied as part of a transition.
            pub fn precondition(&self, state: &State) -> Result<(), Unmet> {
                match self { $($(#[$with])* Command::$Command(command) => command.precondition(state),)* }
            }

            pub(crate) fn growth(&self, state: &State, queues: &dyn NextOffsets) -> i64 {
                match self { $($(#[$with])* Command::$Command(command) => command.growth(state, queues),)* }
            }

            pub(crate) fn apply(self, state: &mut State, queues: &dyn NextOffsets) -> Outcome {
                match self { $($(#[$with])* Command::$Command(command) => command.apply(state, queues),)* }
            }
        }
    };
}

registry! {
    sections {
        topics: Topics = 1,
        groups: ConsumerGroups = 2,
        offsets: Offsets = 3,
        locks: Locks = 4,
        min_offsets: MinOffsets = 5,
        features: Features = 6,
        sent_back: SentBack = 7,
        timers: Timers = 8,
        transactions: Transactions = 9,
        popped: Popped = 10,
        #[cfg(feature = "next-level")]
        counted: Counted = 0x7f00,
    }
    commands {
        CreateTopic = 1,
        PutTopic = 2,
        DeleteTopic = 3,
        CreateGroup = 16,
        PutGroup = 17,
        DeleteGroup = 18,
        CommitOffsets = 32,
        LockQueues = 48,
        UnlockQueues = 49,
        ExpireLocks = 50,
        RaiseLevel = 64,
        NoteSentBack = 80,
        RaiseFloor = 81,
        FireTimers = 96,
        CarryTimers = 97,
        RecallTimer = 98,
        EndTransaction = 112,
        NoteChecks = 113,
        CarryTransactions = 114,
        ResumeTransaction = 115,
        PopMessages = 128,
        PopAgain = 129,
        AckPopped = 130,
        ChangePopped = 131,
        RevivePopped = 132,
        CarryPopped = 133,
        SetRequestMode = 134,
        #[cfg(feature = "next-level")]
        Count = 0x6f00,
        PutTopicV1 = 0x7001,
        DeleteTopicV1 = 0x7002,
        DeleteGroupV1 = 0x7003,
        LockQueuesV1 = 0x7004,
    }
}
