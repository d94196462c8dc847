"""A model of Redis/Valkey nodes and Sentinels that speaks RESP on any event loop; see `node`."""
