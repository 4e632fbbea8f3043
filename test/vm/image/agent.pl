#!/usr/bin/perl
# Runs the test machine's commands: reads frames from a virtio-serial port, answers on the same port.
# In perl because perl-base is in every Debian system and starts much faster than Node without KVM;
# without any module for the same reason.
#
# A frame is type (1 byte), command id and length (4 bytes each, big endian), then that many bytes.
#   to us     R run: length-prefixed shell command, then its standard input;   K kill: signal name
#   from us   H hello: boot id;   P pid;   O stdout;   E stderr;   X exit: code and signal, or -1 and why not
use strict;
use warnings;

# Before the hello, so that the runner finds where a new boot's frames begin after a machine was reset in the
# middle of one.
my $MAGIC = "\0pearasys-agent\0\n";
my $PIDFD_OPEN = 434;

my $port = open_port();
$| = 1;
$SIG{PIPE} = 'IGNORE';

my (%command, %stream, $input);
$input = '';
send_all($MAGIC);
frame('H', 0, boot_id());

while (1) {
    my $in = '';
    vec($in, fileno $_, 1) = 1 for $port, map({ $_->{fh} } values %stream), map({ $_->{end} } values %command);
    my $n = select(my $ready = $in, undef, undef, undef);
    next if $n < 0;
    for my $fd (keys %stream) {
        pump($fd) if $stream{$fd} && vec($ready, $fd, 1);
    }
    for my $id (keys %command) {
        reap($id) if vec($ready, fileno $command{$id}{end}, 1);
    }
    receive() if vec($ready, fileno $port, 1);
}

sub open_port {
    while (1) {
        for my $name (glob '/sys/class/virtio-ports/*/name') {
            open my $fh, '<', $name or next;
            my $is = <$fh> // '';
            chomp $is;
            next if $is ne 'pearasys.agent';
            my ($node) = $name =~ m{/([^/]+)/name$};
            open my $port, '+<:raw', "/dev/$node" or next;
            return $port;
        }
        select undef, undef, undef, 0.1;
    }
}

sub boot_id {
    open my $fh, '<', '/proc/sys/kernel/random/boot_id' or die "boot_id: $!";
    my $id = <$fh>;
    chomp $id;
    return $id;
}

sub send_all {
    my ($data) = @_;
    my $at = 0;
    while ($at < length $data) {
        my $n = syswrite $port, $data, length($data) - $at, $at;
        if (!defined $n) {
            next if $!{EINTR};
            # Nobody is connected outside: what cannot be sent is lost, the commands go on.
            return;
        }
        $at += $n;
    }
}

sub frame {
    my ($type, $id, $data) = @_;
    send_all(pack('a1 N N', $type, $id, length $data) . $data);
}

sub receive {
    my $n = sysread $port, $input, 262144, length $input;
    # End of file means that the runner is not connected; it comes back at once, so do not spin.
    select undef, undef, undef, 0.05 if !$n;
    while (length $input >= 9) {
        my ($type, $id, $length) = unpack 'a1 N N', $input;
        last if length $input < 9 + $length;
        my $data = substr $input, 9, $length;
        substr $input, 0, 9 + $length, '';
        if ($type eq 'R') {
            my ($command, $stdin) = unpack 'N/a* a*', $data;
            run($id, $command, $stdin);
        } elsif ($type eq 'K' && $command{$id}) {
            kill $data, -$command{$id}{pid};
        }
    }
}

sub run {
    my ($id, $shell, $stdin) = @_;
    my $in;
    if (length $stdin) {
        # A file, not a pipe: a command that does not read its input cannot block the agent.
        my $path = "/run/pearasys-agent.$id";
        my $w;
        my $ok = open($w, '>:raw', $path) && print({$w} $stdin) && close($w) && open($in, '<:raw', $path);
        my $why = "$!";
        unlink $path;
        return frame('X', $id, "-1 stdin: $why") if !$ok;
    } elsif (!open $in, '<', '/dev/null') {
        return frame('X', $id, "-1 /dev/null: $!");
    }
    my ($out, $out_w, $err, $err_w);
    return frame('X', $id, "-1 pipe: $!") if !(pipe($out, $out_w) && pipe($err, $err_w));
    my $pid = fork;
    return frame('X', $id, "-1 fork: $!") if !defined $pid;
    if (!$pid) {
        setpgrp 0, 0;
        $SIG{PIPE} = 'DEFAULT';
        open STDIN, '<&', $in;
        open STDOUT, '>&', $out_w;
        open STDERR, '>&', $err_w;
        exec '/bin/sh', '-c', $shell;
        exit 127;
    }
    # Also here, as a kill may come before the child has run at all.
    setpgrp $pid, $pid;
    # A process may end and leave its output open to a daemon, so its end is not the end of that. Nor is it told by
    # SIGCHLD: perl runs a signal's handler only when select has returned, and one that comes just before is slept over.
    my $pidfd = syscall $PIDFD_OPEN, $pid, 0;
    die "pidfd_open: $!" if $pidfd < 0;
    open my $end, '<&=', $pidfd or die "pidfd: $!";
    $command{$id} = {pid => $pid, end => $end};
    $stream{fileno $out} = {fh => $out, id => $id, type => 'O'};
    $stream{fileno $err} = {fh => $err, id => $id, type => 'E'};
    frame('P', $id, $pid);
}

# One read of one output. True while there may be more.
sub pump {
    my ($fd) = @_;
    my $s = $stream{$fd};
    my $n = sysread $s->{fh}, my $data, 65536;
    return 1 if !defined $n && $!{EINTR};
    if (!$n) {
        delete $stream{$fd};
        return 0;
    }
    # What a daemon prints after its starter has ended is read, so that it is not killed by SIGPIPE, and dropped.
    frame($s->{type}, $s->{id}, $data) if $command{$s->{id}};
    return 1;
}

# Tells of the end of a command.
sub reap {
    my ($id) = @_;
    waitpid $command{$id}{pid}, 0;
    my ($code, $signal) = ($? >> 8, $? & 127);
    for my $fd (keys %stream) {
        next if $stream{$fd}{id} != $id;
        # What the process wrote fits in the pipe: one pipe's worth is enough, and a daemon that goes on
        # writing cannot keep us here.
        for (1 .. 16) {
            my $in = '';
            vec($in, $fd, 1) = 1;
            last if select($in, undef, undef, 0) <= 0 || !pump($fd);
        }
    }
    delete $command{$id};
    frame('X', $id, "$code $signal");
}
