"""Flow records in the forms that others read: Azure Firewall's tables, syslog, OpenTelemetry."""
