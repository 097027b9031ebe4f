"""A transactional outbox: `publish_on_commit` writes a row in the transaction of its caller, and a
relay publishes the rows. Add "nats_consumer.contrib.outbox" to INSTALLED_APPS and migrate."""
