"""`edgeq top`: the live screen. A client of the admin socket and nothing else; no process of a gateway imports it.

gateway_io   what the gateway tells, asked again and again
model        what of it is shown and in which order: sorting, filter, selection, the recent past of each queue
screen       lines of text of a given width and height; `edgeq top --once` prints them
app_io       the terminal (textual, the extra `edgeq[top]`): keys, size, colours
"""
