#!/usr/bin/env perl
# Follows the bus without losing an event. Debian: apt install libzmq-ffi-perl. With `discorder serve` running:
#     perl subscriber.pl [ADDRESS] [ROUTER] [TYPE...]
# The protocol: docs/bus.md.
use strict;
use warnings;
use JSON::PP;
use ZMQ::FFI qw(ZMQ_SUB ZMQ_DEALER);

$| = 1;
my $address = shift // 'tcp://127.0.0.1:6000';
my $router  = shift // 'tcp://127.0.0.1:6001';
my %types   = map { $_ => 1 } (@ARGV ? @ARGV : 'MESSAGE_CREATE');

my $json    = JSON::PP->new->utf8->allow_bignum;
my $context = ZMQ::FFI->new();
my ($bus, $dealer) = ($context->socket(ZMQ_SUB), $context->socket(ZMQ_DEALER));
$bus->connect($address);
$dealer->connect($router);
$bus->subscribe($_) for keys %types;

# The last event handled, for each type on each shard: [session, seq].
my (%seen, $requests);

sub last_of { my ($event) = @_; return $seen{"$event->{shard}[0] $event->{type}"} }

sub is_new {
    my ($event) = @_;
    my $last = last_of($event);
    return !$last || $last->[0] ne $event->{session} || $event->{seq} > $last->[1];
}

sub handle {
    my ($event, $how) = @_;
    $seen{"$event->{shard}[0] $event->{type}"} = [ @$event{qw(session seq)} ];
    print "$how $event->{type} $event->{seq}\n";
}

# Something was lost before this event: request everything of its type that the bus still has.
sub fill {
    my ($event) = @_;
    my ($session, $after) = @{ last_of($event) };
    print "gap $event->{type} $after " . ($event->{prev} // 'unknown') . "\n";
    my $id = ++$requests;
    $dealer->send($json->encode({
        v => 1, id => $id, op => 'replay', shard => $event->{shard}[0],
        session => $session, after => $after, types => [ $event->{type} ],
    }));
    while (1) {
        my ($answered, $topic, $document) = $dealer->recv_multipart();
        next if $answered ne $id;
        my $part = $json->decode($document);
        if ($topic eq '') {
            print "lost $event->{type} $document\n" unless $part->{complete};
            return;
        }
        handle($part, 'replayed') if is_new($part);
    }
}

print "listening\n";
while (1) {
    my ($topic, $document) = $bus->recv_multipart();
    next unless $types{$topic};    # topics match by prefix
    my $event = $json->decode($document);
    next unless is_new($event);
    my $last = last_of($event);

    # prev null: not known, after a restart of the control plane. Another session: Discord no longer has the events between the two.
    my $follows = !$last || ($last->[0] eq $event->{session} && defined $event->{prev} && $event->{prev} == $last->[1]);
    fill($event) unless $follows;
    handle($event, 'live') if is_new($event);
}
