"""What every long-running command needs: logs, metrics, configuration, TLS, notification.

Law: knows neither the edge nor the cloud. Shells use it; pure modules do not.
"""
