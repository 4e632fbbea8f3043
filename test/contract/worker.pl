#!/usr/bin/perl
# Handles the requests of the contract's cases on the test machine: one line for each request, one line for each
# response. A process for each request would be much slower. Words are separated by spaces, and escaped as in a URL.
use strict;
use warnings;

my $port;
until ($port) {
    for my $name (glob '/sys/class/virtio-ports/*/name') {
        open my $fh, '<', $name or next;
        chomp(my $is = <$fh> // '');
        next if $is ne 'pearasys.contract';
        my ($node) = $name =~ m{/([^/]+)/name$};
        open $port, '+<:raw', "/dev/$node" or die "/dev/$node: $!\n";
    }
}
my (%stuck, $input);
$input = '';
while (1) {
    my $n = sysread $port, $input, 65536, length $input;
    # The host is not connected yet.
    select undef, undef, undef, 0.02 if !$n;
    while ($input =~ s/^([^\n]*)\n//) {
        my @answer = answer(map { s/%(..)/chr hex $1/ger } split / /, $1);
        my $line = join(' ', map { s/([^A-Za-z0-9_.:\/-])/sprintf '%%%02x', ord $1/ger } @answer) . "\n";
        for (my $at = 0; $at < length $line;) {
            $at += syswrite($port, $line, length($line) - $at, $at) // die "write: $!\n";
        }
    }
}

sub answer {
    my ($what, $path, @more) = @_;
    if ($what eq 'read') {
        open my $fh, '<:raw', $path or return $!{ENOENT} ? 'none' : ('errno', $! + 0);
        my ($text, $n) = ('', 1);
        while ($n) {
            $n = sysread $fh, $text, 65536, length $text;
            return 'errno', $! + 0 if !defined $n;
        }
        return 'text', $text;
    }
    return -l $path || -e _ ? 'yes' : 'no' if $what eq 'exists';
    if ($what eq 'list') {
        opendir my $dh, $path or return 'names';
        return 'names', sort grep { !/^\.\.?$/ } readdir $dh;
    }
    if ($what eq 'link') {
        my $to = readlink $path;
        return defined $to ? ('text', $to =~ s{.*/}{}r) : 'none';
    }
    return 'errno', write_once($path, $more[0]) if $what eq 'write';
    if ($what eq 'forever') {
        my $pid = fork // die "fork: $!\n";
        if (!$pid) {
            my $errno = write_once($path, $more[0]);
            # exec prevents the child from running the parent's END blocks and destructors.
            exec '/bin/sh', '-c', "exit $errno";
        }
        # The process waits, and is not only slow, if ten checks in a row find it in the kernel.
        for (my $looks = 0; $looks < 10;) {
            if (waitpid($pid, 1) == $pid) { return 'errno', $? >> 8 }
            open my $fh, '<', "/proc/$pid/stat" or die "stat: $!\n";
            # State S or D: a signal can end some waits of the kernel.
            $looks = <$fh> =~ /\) [SD] / ? $looks + 1 : 0;
            select undef, undef, undef, 0.05;
        }
        return 'stuck', $pid;
    }
    if ($what eq 'returned') {
        waitpid $path, 0;
        return 'errno', $? >> 8;
    }
    if ($what eq 'put') {
        my ($folder) = $path =~ m{(.*)/};
        system 'mkdir', '-p', $folder if !-d $folder;
        open my $fh, '>:raw', $path or return 'errno', $! + 0;
        print {$fh} $more[0];
        return close $fh ? ('errno', 0) : ('errno', $! + 0);
    }
    if ($what eq 'remove') {
        system 'rm', '-rf', '--', $path;
        return 'errno', 0;
    }
    die "no such question: $what\n" if $what ne 'run';
    my @output;
    for my $fd (1, 2) { open $output[$fd], '+>', undef or die "file: $!\n" }
    my $pid = fork // die "fork: $!\n";
    if (!$pid) {
        open STDIN, '<', '/dev/null';
        open STDOUT, '>&', $output[1];
        open STDERR, '>&', $output[2];
        exec {$path} $path, @more;
        exit 127;
    }
    waitpid $pid, 0;
    my $code = $? & 127 ? 128 + ($? & 127) : $? >> 8;
    return 'ended', $code, map { my $fh = $output[$_]; seek $fh, 0, 0; local $/; <$fh> // '' } 1, 2;
}

sub write_once {
    my ($path, $text) = @_;
    sysopen my $fh, $path, 1 or return $! + 0;
    return defined syswrite($fh, $text) ? 0 : $! + 0;
}
