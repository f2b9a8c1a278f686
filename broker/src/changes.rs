//! Changes of topics and groups: commands in the log, done when they are applied here.
//!
//! What somebody may change is checked where it is proposed, against what is there then, and once more than when the request
//! came: a list takes seconds, in which others create what it names. In between nothing changes it: all that replaces a
//! topic or a group takes its turn by name ([`crate::name_locks`]), and who is no operator creates what is not there with a command
//! that replaces nothing (`admin.I3`). The leader alone proposes, and a new one has applied all that its predecessor did.

use std::sync::Arc;

use folio_state::{Command, CreateGroup, CreateTopic, DeleteGroup, Outcome, PutGroup, PutTopic, State};

use crate::applied;
use crate::broker::Broker;
use crate::error::BrokerError;
use crate::rights;

/// Executes commands one after the other: done when all are applied, or at the first failure. What deletes messages is
/// done when no living node gives them out any more (`applied.I1`).
pub(crate) async fn execute(
    broker: &Arc<Broker>,
    commands: Vec<Command>,
    is_operator: bool,
) -> Result<(), BrokerError> {
    let deletes = {
        let state = broker.group.state();
        commands.iter().any(|command| deletes_messages(&state, command))
    };
    for command in commands {
        change(broker, &command, is_operator).await?;
    }
    if deletes {
        applied::everywhere(broker).await;
    }
    Ok(())
}

async fn change(broker: &Broker, command: &Command, is_operator: bool) -> Result<(), BrokerError> {
    let _turn = match replaced(command) {
        Some(name) => Some(broker.replaced.of(name).await),
        None => None,
    };
    loop {
        let command = if is_operator {
            command.clone()
        } else {
            within_rights(&broker.group.state(), command.clone())?
        };
        let creates = matches!(command, Command::CreateTopic(_) | Command::CreateGroup(_));
        let outcome = broker.group.execute(command).await?;
        // A sender or a consumer was faster: now it is a change of what is there.
        if !(creates && outcome == Outcome::Exists) {
            return Ok(());
        }
    }
}

/// The name of what a command replaces.
fn replaced(command: &Command) -> Option<&str> {
    match command {
        Command::PutTopic(PutTopic(topic)) => Some(&topic.name),
        Command::PutGroup(PutGroup(group)) => Some(&group.name),
        _ => None,
    }
}

/// The command as a client that is no operator may give it.
fn within_rights(state: &State, command: Command) -> Result<Command, BrokerError> {
    match command {
        Command::PutTopic(PutTopic(topic)) => match state.topic(&topic.name) {
            None => Ok(CreateTopic(topic).into()),
            before => rights::check_topic_change(before, &topic).map(|()| PutTopic(topic).into()),
        },
        Command::PutGroup(PutGroup(group)) => match state.group(&group.name) {
            None => Ok(CreateGroup(group).into()),
            before => rights::check_group_change(before, &group).map(|()| PutGroup(group).into()),
        },
        other => Ok(other),
    }
}

fn deletes_messages(state: &State, command: &Command) -> bool {
    match command {
        Command::DeleteTopic(_) => true,
        Command::DeleteGroup(DeleteGroup { clean_offsets, .. }) => *clean_offsets,
        Command::PutTopic(PutTopic(topic)) => {
            state.topic(&topic.name).is_some_and(|before| before.queue_count() > topic.queue_count())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use folio_state::{ConsumerGroup, Topic};

    use super::*;

    #[test]
    fn admin_i3_what_is_not_there_is_created_and_never_replaced() {
        let mut state = State::default();
        let topic = |queues| Command::from(PutTopic(Topic::new("t", queues)));
        let group = || Command::from(PutGroup(ConsumerGroup::new("g")));
        let may = |state: &State, command| within_rights(state, command).ok();
        assert_eq!(may(&state, topic(1)), Some(Command::from(CreateTopic(Topic::new("t", 1)))));
        assert_eq!(may(&state, group()), Some(Command::from(CreateGroup(ConsumerGroup::new("g")))));
        state.apply(topic(8));
        state.apply(group());
        assert_eq!(may(&state, topic(1)), None);
        assert_eq!(may(&state, topic(9)), Some(topic(9)));
        assert_eq!(may(&state, group()), Some(group()));
    }
}
