/* Cases for the probes as ordinary C. Built by test_host.py: host.h, the flattened probes, then this file. */
#include "cases_stage.c"
#include "cases_calls.c"
#include "cases_books.c"
#include "cases_features.c"
#include "cases_life.c"

int main(void)
{
	bounds_hold_for_every_length();
	vectors_are_gathered_like_a_reference();
	a_write_becomes_a_record();
	what_is_no_internet_socket_is_counted();
	impossible_results_are_refused();
	memory_that_cannot_be_read_is_flagged();
	fast_open_and_concurrent_writes_are_ambiguous();
	one_number_more_than_was_read_is_a_fin_or_ambiguous();
	a_closed_socket_still_has_its_local_port();
	messages_have_positions_across_the_wrap();
	the_books_balance_whatever_happens(0);
	the_books_balance_whatever_happens(3000);
	records_wait_and_leave_together();
	hooks_stop_when_nobody_listens();
	a_settled_connection_is_not_looked_up_and_a_reused_socket_is();
	a_limit_holds_for_the_connection_that_it_names();
	unix_streams_are_followed_where_they_are_wanted();
	a_datagram_has_the_peer_that_its_call_names();
	a_call_that_waited_when_tracing_began_is_followed();
	splice_is_seen_from_either_side();
	connections_are_shed_whole_and_come_back();
	the_last_thread_ends_the_process();
	an_event_that_finds_the_ring_full_is_counted();
	a_line_of_the_log_is_emitted_where_it_is_wanted();
	a_child_that_does_not_fit_is_counted();
	a_reset_connection_is_told_once();
	host_forget_out();
	printf("%d failures\n", failures);
	return failures != 0;
}
