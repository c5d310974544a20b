"""One room a model generation: messages to prompt ids, token ids to content, reasoning and tool calls."""
