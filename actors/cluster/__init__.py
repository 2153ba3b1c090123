"""Who owns which partition: placement, membership by lease, takeover and hand-over. Knows no HTTP."""
