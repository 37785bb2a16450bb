"""The parent: keeps the listening sockets, the board and the configuration, and keeps the workers alive.

::

    run_io -> supervisor_io -> fleet_io -> spawner_client_io ~~> spawner_io (a process) ~~> worker.run_io (a process)
                    |              |
                 admin        sockets_io (shards, bpf, holder_io)      channel_io (messages, frames)

`steering_io` decides which workers get new connections, and who serves those of a worker that is dead or stuck;
`slots` decides which workers run and when a dead one is started again; `shards` and `bpf` decide which worker's socket
a new connection may reach. The modules without `_io` are pure.
"""
