"""The whole house: its arrows, its documents, its inputs that go wrong."""
