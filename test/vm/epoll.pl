#!/usr/bin/perl
# epoll.pl NODE
# Opens a sound control node as a sound server does: subscribes to its events,
# waits for them by epoll(7), and closes the node upon EPOLLERR or EPOLLHUP, which the kernel gives when the card goes. Says "open" and "closed", and stays.
use strict;
use warnings;

my ($SYS_epoll_wait, $SYS_epoll_ctl, $SYS_epoll_create1) = (232, 233, 291);
my ($EPOLL_CTL_ADD, $EPOLLIN, $EPOLLERR, $EPOLLHUP) = (1, 0x1, 0x8, 0x10);

sysopen my $node, $ARGV[0], 0 or die "$ARGV[0]: $!\n";
# sound/asound.h: SNDRV_CTL_IOCTL_SUBSCRIBE_EVENTS; without it snd_ctl_poll waits for nothing.
my $subscribe = pack 'i', 1;
ioctl $node, 0xc0045516, $subscribe or die "SNDRV_CTL_IOCTL_SUBSCRIBE_EVENTS: $!\n";
my $epoll = syscall $SYS_epoll_create1, 0;
my $event = pack 'L Q', $EPOLLIN, 0;
syscall($SYS_epoll_ctl, $epoll, $EPOLL_CTL_ADD, fileno $node, $event) == 0 or die "epoll_ctl: $!\n";
$| = 1;
print "open\n";
while (1) {
    my $got = "\0" x 12;
    syscall($SYS_epoll_wait, $epoll, $got, 1, -1) > 0 or next;
    last if unpack('L', $got) & ($EPOLLERR | $EPOLLHUP);
}
close $node;
print "closed\n";
sleep while 1;
