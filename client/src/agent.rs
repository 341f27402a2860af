//! The running ssh agent and what it holds. Not here: which of its keys are tried, and when (`login`).

use std::path::PathBuf;
use std::time::Duration;

use russh::client::Handle;
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use tokio::net::UnixStream;

use crate::handler::Handler;

/// The agent is local; without an answer in this time it is stuck.
const AGENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Which agent to ask: `IdentityAgent` of ssh_config.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AgentChoice {
    /// The one of `SSH_AUTH_SOCK`.
    #[default]
    Environment,
    /// The one of this socket.
    Socket(PathBuf),
    /// None.
    Off,
}

/// A running ssh agent and what it holds.
pub(crate) struct Agent {
    pub(crate) client: AgentClient<UnixStream>,
    pub(crate) identities: Vec<AgentIdentity>,
}

impl Agent {
    /// Connects; none if there is no agent or it does not answer.
    pub(crate) async fn connect(handle: &Handle<Handler>, choice: &AgentChoice) -> Option<Self> {
        let socket = match choice {
            AgentChoice::Off => return None,
            AgentChoice::Socket(path) => path.clone(),
            AgentChoice::Environment => {
                std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty())?.into()
            }
        };
        let connected = tokio::time::timeout(AGENT_TIMEOUT, async {
            let mut client = AgentClient::connect_uds(&socket).await?;
            // Lets the agent enforce keys that are bound to destinations; agents without that refuse, which is fine.
            if let Some(binding) = handle.agent_session_binding() {
                let bound = client.bind_session(binding, false).await;
                tracing::trace!(bound = bound.is_ok(), "agent session binding");
            }
            let identities = client.request_identities().await?;
            Ok::<_, russh::keys::Error>(Self { client, identities })
        });
        match connected.await {
            Ok(Ok(agent)) => {
                tracing::debug!(keys = agent.identities.len(), "ssh agent");
                Some(agent)
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, socket = %socket.display(), "the ssh agent cannot be used");
                None
            }
            Err(_) => {
                tracing::warn!(socket = %socket.display(), "the ssh agent does not answer");
                None
            }
        }
    }
}
