"""labbridge's daemon against programs that are not ours, over real sockets."""
