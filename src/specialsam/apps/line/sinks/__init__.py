"""Where events go: lines of JSON, SQL databases, MQTT, webhooks."""
