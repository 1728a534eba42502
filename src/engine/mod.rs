//! Engine.IO v4. Gives connections; knows nothing of Socket.IO.
