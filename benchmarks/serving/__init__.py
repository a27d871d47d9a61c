"""What serving costs: this server beside its peers, in one run on one machine."""
