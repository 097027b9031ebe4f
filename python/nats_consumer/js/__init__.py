"""The names of nats-py's `nats.js`: its exceptions in `js.errors`, its structs in `js.api`."""
