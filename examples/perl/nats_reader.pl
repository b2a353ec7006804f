#!/usr/bin/env perl
# Reads the events of a bot out of a NATS stream with nothing but a socket: the protocol of NATS is text. Perl's own modules suffice.
#     perl nats_reader.pl [HOST:PORT] STREAM NAME
# NAME is that of a durable consumer: the next start goes on after the last acknowledged event. One reader per NAME.
# The document of an event: docs/delivery.md.
use strict;
use warnings;
use IO::Socket::INET;
use JSON::PP;

$| = 1;
my ($server, $stream, $name) = @ARGV == 3 ? @ARGV : ('127.0.0.1:4222', @ARGV);
my $json  = JSON::PP->new->utf8->allow_bignum;
my $inbox = "_INBOX.perl$$." . time;
my $socket;

sub publish {
    my ($subject, $payload, $reply) = @_;
    print $socket join(' ', 'PUB', $subject, $reply // (), length $payload), "\r\n$payload\r\n";
}

# Read up to the next message: (subject, reply, header, payload). A server that is silent for longer than a request has stopped.
sub message {
    local $SIG{ALRM} = sub { die "the server does not answer\n" };
    alarm 15;
    while (defined(my $line = <$socket>)) {
        if ($line =~ /^PING/)    { print $socket "PONG\r\n" }
        if ($line =~ /^-ERR (.*?)\s*$/) { die "the server says $1\n" }
        my ($kind, $subject, undef, @rest) = split ' ', $line;
        next unless $kind =~ /^H?MSG$/;
        my $size    = pop @rest;
        my $headers = $kind eq 'HMSG' ? pop @rest : 0;
        (read $socket, my $bytes, $size + 2) == $size + 2 or last;    # with \r\n
        alarm 0;
        return ($subject, $rest[0] // '', substr($bytes, 0, $headers), substr($bytes, $headers, $size - $headers));
    }
    die "the connection was lost\n";
}

sub request {
    my ($subject, $wanted) = @_;
    publish("\$JS.API.$subject", $json->encode($wanted), "$inbox.api");
    my (undef, undef, undef, $payload) = message();
    my $answer = length $payload ? $json->decode($payload) : { error => { description => 'JetStream is off' } };
    die "$subject: $answer->{error}{description}\n" if $answer->{error};
}

my %last;    # of each shard: [session, seq]; an event comes again if its acknowledgement was lost with the server

sub is_new {
    my ($event) = @_;
    my ($shard, $session, $seq) = ($event->{shard}[0], @$event{qw(session seq)});
    return 1 unless defined $seq;
    return 0 if $last{$shard} && $last{$shard}[0] eq $session && $seq <= $last{$shard}[1];
    $last{$shard} = [ $session, $seq ];
    return 1;
}

sub run {
    $socket = IO::Socket::INET->new(PeerAddr => $server, Timeout => 5) or die "$server: $!\n";
    $socket->autoflush(1);
    print $socket qq(CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"name":"perl"}\r\n);
    print $socket "SUB $inbox.* 1\r\n";
    my %config = (name => $name, durable_name => $name, deliver_policy => 'all', ack_policy => 'explicit', ack_wait => 5_000_000_000);
    request("CONSUMER.CREATE.$stream.$name", { stream_name => $stream, config => \%config });
    while (1) {    # a request brings at most 100 messages, and ends after 5 seconds
        publish("\$JS.API.CONSUMER.MSG.NEXT.$stream.$name", '{"batch":100,"expires":5000000000}', "$inbox.next");
        for (1 .. 100) {
            my (undef, $reply, $header, $payload) = message();
            last if $header =~ m{^NATS/1.0 \d};    # a status: the request has ended
            my $event = $json->decode($payload);
            publish($reply, '+ACK') and next unless is_new($event);
            my $what  = $event->{type} eq 'DISCORDER_GAP' ? "events are missing: $event->{data}{cause}" : $event->{seq} // '';
            print "$event->{type} $event->{shard}[0] $what\n";
            publish($reply, '+ACK');
        }
    }
}

while (1) { eval { run(); 1 } or warn $@; sleep 1 }
