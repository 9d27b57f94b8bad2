"""Parts of the executor that forwards to a remote A2A agent."""
