"""Step 1 of 5, listener: someone connects.

From the listening socket to the first byte of HTTP, in the order in which a connection meets them::

    accept_io        the accept loop on our own listening socket, in a budget for each turn of the loop
    accept_policy    when to accept, rest, skip or give up (decisions only)
    reception_io     a place for each accepted connection, a wait for one, or a refusal
    preface_io       the PROXY header of trusted peers, read before a transport exists (proxy_protocol parses it)
    backlog          accepted connections that wait for a place
    refuse_io        a last word to those who get none
    open_io          the transport: plain, or through a TLS handshake (tls_io: certificates by name)
    connection       the downstream protocol

Who is connected is a `peer.Peer`.
"""
