"""Project: Kafka to Redis. The newest of every vital, the live window, alerts, who is where.

Law: idempotent and order-free. Applying a record twice, or records in another order, leaves the
same content; what was applied is written with the data, in one atomic step.
"""
