"""Code for one socket: runs consumers and delivers the events of their groups. It must not know facilities."""
