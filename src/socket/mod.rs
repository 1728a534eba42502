//! Socket.IO v5. Knows nothing of messages, users or databases.
