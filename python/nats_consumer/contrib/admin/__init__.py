"""Pages in Django's admin: consumers, dead letters, the outbox."""
