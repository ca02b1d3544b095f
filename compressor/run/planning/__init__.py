"""Every default made explicit and every refusal made, before a minute is spent."""
