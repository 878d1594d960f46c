"""CloudWatch: a few numbers of every service, from its Prometheus page to CloudWatch.

Law: only names in the allow-list leave, with the service as their only dimension.
"""
