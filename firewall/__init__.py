"""Typed firewall policy and its way into nftables."""
