"""The rotation of secrets while the stack runs: `./ops/stack rotate`.

Every secret goes through the same steps (ops/rotation_state.py), all those of one command together:

1. `prepare`: the new value is generated, and interim roles of Postgres are created.
2. `admit`: servers accept both values. Clients of Postgres, whose roles have one password, log in as interim roles with
   the new value.
3. `switch`: Postgres' roles get the new password, which no client uses at that moment.
4. `adopt`: clients use the new value; stored data is encrypted again. The operator's file has the new value.
5. `wait`: keys of tokens wait until no token of the former key is valid.
6. `drop`: servers refuse the former value.

Each step is complete before the next one is recorded, and may be done twice, so that after an interruption the next
`rotate` or `up` continues. At no step does a client have only a value that its server refuses. Containers that read a
changed file are replaced one at a time (ops/rolling.py). Redis, Sentinels, gateway and pages are not: their files are
written in place, and they get the change while they run (servers.py).
"""
