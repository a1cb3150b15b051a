# DBD::Pg: server-side statements, transactions, COPY, notices, notifications, large objects, asynchronous queries.

use strict;
use warnings;
use DBI;
use DBD::Pg qw(:pg_types :async);

$| = 1;

sub say_ {
    my ($label, @came) = @_;
    my $text = join ',', map { !defined $_ ? 'undef' : ref $_ eq 'ARRAY' ? '[' . join('|', map { defined $_ ? ref $_ ? "(@$_)" : $_ : 'undef' } @$_) . ']' : $_ } @came;
    $text =~ s/\n/ /g;
    print "$label => $text\n";
}

sub attempt {
    my ($label, $work) = @_;
    my @came = eval { $work->() };
    say_($label, $@ ? ($DBI::state, $DBI::errstr) : @came);
}

sub connected {
    return DBI->connect("dbi:Pg:dbname=$ENV{PGDATABASE};host=$ENV{PGHOST};port=$ENV{PGPORT}", $ENV{PGUSER}, $ENV{PGPASSWORD},
        { RaiseError => 1, PrintError => 0, AutoCommit => 1, @_ });
}

my $dbh = connected();
print "part => statements\n";
$dbh->do('create table kept (id int primary key, t text, n numeric, b bytea, a int[])');
my $insert = $dbh->prepare('insert into kept values (?, ?, ?, ?, ?) returning id');
$insert->bind_param(4, undef, { pg_type => PG_BYTEA });
for my $id (1 .. 6) {
    $insert->execute($id, $id % 2 ? "it's $id" : undef, "$id.50", "\0\x01", [$id, undef]);
    say_('insert', $insert->fetchrow_array);
}
my $select = $dbh->prepare('select * from kept where id = ?');
for my $id (1 .. 6, 1 .. 6) {
    $select->execute($id);
    say_('select', $select->rows, map { [map { defined $_ && !ref $_ ? s/([^ -~])/sprintf '%%%02x', ord $1/ger : $_ } @$_] } @{ $select->fetchall_arrayref });
}
say_('names', $select->{NAME}, $select->{pg_type}, $select->{NULLABLE}, $select->{TYPE});
for my $way (0, 1, 2) {
    my $sth = $dbh->prepare('select id, t from kept where id > $1 order by id limit 2', { pg_server_prepare => $way });
    $sth->execute(2);
    say_("server prepare $way", $sth->fetchall_arrayref);
}
my $direct = $dbh->prepare('select ?::text', { pg_direct => 0, pg_switch_prepared => 1 });
for (1 .. 3) { $direct->execute('x'); say_('switched', $direct->fetchrow_array) }
attempt('unique', sub { $dbh->do('insert into kept (id) values (1)') });
attempt('mistake', sub { $dbh->do('selec') });
attempt('type', sub { my $sth = $dbh->prepare('select ?::int'); $sth->execute('x') });
say_('several', $dbh->do('insert into kept (id) values (7); update kept set t = null where id < 4'));
say_('hash', map { "$_" } sort keys %{ $dbh->selectall_hashref('select id, t from kept', 'id') });
my $tuples = $dbh->prepare('insert into kept (id, t) values (?, ?)');
say_('array', $tuples->execute_array({}, [20, 21, 22], ['a', 'b', 'c']));
say_('ping', $dbh->ping);
say_('status', $dbh->{pg_protocol}, $dbh->{pg_server_version} > 0, $dbh->{pg_lib_version} > 0);

print "part => transactions\n";
$dbh->begin_work;
$dbh->do('insert into kept (id) values (30)');
$dbh->pg_savepoint('s');
attempt('fails', sub { $dbh->do('insert into kept (id) values (30)') });
say_('ping', $dbh->pg_ping, $dbh->state);
$dbh->pg_rollback_to('s');
$dbh->pg_release('s');
$dbh->commit;
say_('stayed', $dbh->selectrow_array('select count(*) from kept where id = 30'));
{
    my $manual = connected(AutoCommit => 0);
    $manual->do('insert into kept (id) values (31)');
    $manual->rollback;
    say_('gone', $manual->selectrow_array('select count(*) from kept where id = 31'));
    my $cursor = $manual->prepare('declare c cursor for select n from generate_series(1, 20) n');
    $cursor->execute;
    say_('cursor', $manual->selectcol_arrayref('fetch 3 from c'), $manual->selectcol_arrayref('fetch 2 from c'));
    $manual->do('close c');
    $manual->commit;
    $manual->disconnect;
}

print "part => copy\n";
$dbh->do('create table copied (id int primary key, t text)');
$dbh->do('copy copied from stdin');
$dbh->pg_putcopydata("1\tone\n");
$dbh->pg_putcopydata("2\t\\N\n");
say_('end', $dbh->pg_putcopyend);
$dbh->do('copy copied to stdout');
my $line;
while ($dbh->pg_getcopydata($line) >= 0) { say_('line', $line) }
$dbh->do('copy copied from stdin');
$dbh->pg_putcopydata("1\ttwice\n");
attempt('twice', sub { $dbh->pg_putcopyend });
say_('after', $dbh->selectrow_array('select count(*) from copied'));

print "part => large objects\n";
$dbh->begin_work;
my $oid = $dbh->pg_lo_creat($dbh->{pg_INV_WRITE} | $dbh->{pg_INV_READ});
my $fd = $dbh->pg_lo_open($oid, $dbh->{pg_INV_WRITE} | $dbh->{pg_INV_READ});
say_('write', $dbh->pg_lo_write($fd, 'a large object', 14));
say_('seek', $dbh->pg_lo_lseek($fd, 2, 0), $dbh->pg_lo_tell($fd));
my $buffer;
say_('read', $dbh->pg_lo_read($fd, $buffer, 5), $buffer);
say_('close', $dbh->pg_lo_close($fd));
$dbh->commit;
$dbh->begin_work;
say_('unlink', $dbh->pg_lo_unlink($oid));
$dbh->commit;

print "part => asynchronous\n";
my $slow = $dbh->prepare('select pg_sleep(0.2), 5', { pg_async => PG_ASYNC });
$slow->execute;
say_('not ready', $slow->pg_ready);
say_('result', $slow->pg_result, $slow->fetchrow_arrayref->[1]);
$slow = $dbh->prepare('select pg_sleep(30)', { pg_async => PG_ASYNC });
$slow->execute;
# A server that is told before it has begun does nothing.
select undef, undef, undef, 0.5;
say_('cancel', $dbh->pg_cancel);
$dbh->do('select 1', { pg_async => PG_ASYNC });
$dbh->do('select 2', { pg_async => PG_ASYNC + PG_OLDQUERY_WAIT });
say_('second', $dbh->pg_result);

print "part => notifications\n";
$dbh->do('listen news');
my $other = connected();
$other->do("notify news, 'from another'");
my $note;
for (1 .. 200) { last if $note = $dbh->pg_notifies; select undef, undef, undef, 0.05 }
say_('heard', $note->[0], $note->[2], $note->[1] == $other->{pg_pid} ? 'by it' : 'by somebody');
$dbh->do("notify news, 'own'");
$note = $dbh->pg_notifies;
say_('own', $note ? ($note->[2], $note->[1] == $dbh->{pg_pid} ? 'by me' : 'by somebody') : 'nothing');
$dbh->do('unlisten *');
{
    my @heard;
    local $SIG{__WARN__} = sub { push @heard, $_[0] =~ s/ at .*//sr };
    $dbh->{PrintWarn} = 1;
    $dbh->do(q{do $$ begin raise warning 'of the server'; end $$});
    say_('warned', @heard);
}
print "part => catalog\n";
say_('tables', sort map { $_->[2] } @{ $dbh->table_info('', 'public', '%', 'TABLE')->fetchall_arrayref });
say_('columns', map { $_->[3] } @{ $dbh->column_info('', 'public', 'kept', '%')->fetchall_arrayref });
say_('keys', $dbh->primary_key('', 'public', 'kept'));
say_('types', scalar(@{ $dbh->type_info_all }) > 5 ? 'many' : 'few');
$dbh->do('create sequence counter');
$dbh->do("create table serials (id int default nextval('counter') primary key, t text)");
$dbh->do("insert into serials (t) values ('x')");
say_('last id', $dbh->last_insert_id(undef, 'public', 'serials', undef), $dbh->last_insert_id(undef, undef, undef, undef, { sequence => 'counter' }));
$dbh->do("set client_encoding = 'latin1'");
say_('encoding', $dbh->selectrow_array('show client_encoding'));
$dbh->do('create temporary table mine (id int)');
say_('temporary', $dbh->selectrow_array('select count(*) from mine'));
$other->disconnect;
$dbh->disconnect;
