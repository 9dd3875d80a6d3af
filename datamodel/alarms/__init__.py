"""What an operator must know: raised in the transaction that records it, told by e-mail and signed webhook, listed until cleared."""
