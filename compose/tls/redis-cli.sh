#!/bin/sh
# redis-cli of a container with TLS=on. It verifies that the server has a certificate of the stack's authority, and no
# host name (https://github.com/redis/redis/pull/15492): it connects inside the container.
PATH=/usr/local/bin:/usr/bin:/bin
exec redis-cli --tls --cacert /run/secrets/tls_ca.pem --cert /run/secrets/server.pem --key /run/secrets/server.pem "$@"
