// Holds our declarations against the public header, on machines that have it.
#include "link/verbs_abi.h"

#if __has_include(<infiniband/verbs.h>)
#include <infiniband/verbs.h>

namespace shoal::link::verbs {
namespace {

#define SHOAL_SAME_SIZE(ours, theirs) static_assert(sizeof(ours) == sizeof(theirs))
#define SHOAL_SAME_PLACE(ours, field, theirs, its) \
  static_assert(offsetof(ours, field) == offsetof(theirs, its))

SHOAL_SAME_SIZE(Gid, ibv_gid);
SHOAL_SAME_SIZE(QueuePairCreation, ibv_qp_init_attr);
SHOAL_SAME_SIZE(QueuePairAttributes, ibv_qp_attr);
SHOAL_SAME_SIZE(Piece, ibv_sge);
SHOAL_SAME_SIZE(SendRequest, ibv_send_wr);
SHOAL_SAME_SIZE(ReceiveRequest, ibv_recv_wr);
SHOAL_SAME_SIZE(Completion, ibv_wc);
SHOAL_SAME_SIZE(ContextOperations, ibv_context_ops);
static_assert(sizeof(PortAttributes) >= sizeof(ibv_port_attr));

SHOAL_SAME_PLACE(PortAttributes, gid_count, ibv_port_attr, gid_tbl_len);
SHOAL_SAME_PLACE(PortAttributes, max_message_bytes, ibv_port_attr, max_msg_sz);
SHOAL_SAME_PLACE(PortAttributes, lid, ibv_port_attr, lid);
SHOAL_SAME_PLACE(PortAttributes, link_layer, ibv_port_attr, link_layer);
SHOAL_SAME_PLACE(MemoryRegion, lkey, ibv_mr, lkey);
SHOAL_SAME_PLACE(QueuePair, number, ibv_qp, qp_num);
SHOAL_SAME_PLACE(QueuePair, state, ibv_qp, state);
SHOAL_SAME_PLACE(CompletionQueue, entries, ibv_cq, cqe);
SHOAL_SAME_PLACE(QueuePairCreation, capacity, ibv_qp_init_attr, cap);
SHOAL_SAME_PLACE(QueuePairCreation, type, ibv_qp_init_attr, qp_type);
SHOAL_SAME_PLACE(QueuePairAttributes, path_mtu, ibv_qp_attr, path_mtu);
SHOAL_SAME_PLACE(QueuePairAttributes, receive_psn, ibv_qp_attr, rq_psn);
SHOAL_SAME_PLACE(QueuePairAttributes, destination_number, ibv_qp_attr, dest_qp_num);
SHOAL_SAME_PLACE(QueuePairAttributes, access, ibv_qp_attr, qp_access_flags);
SHOAL_SAME_PLACE(QueuePairAttributes, path, ibv_qp_attr, ah_attr);
SHOAL_SAME_PLACE(QueuePairAttributes, port, ibv_qp_attr, port_num);
SHOAL_SAME_PLACE(QueuePairAttributes, max_destination_reads, ibv_qp_attr, max_dest_rd_atomic);
SHOAL_SAME_PLACE(QueuePairAttributes, min_rnr_timer, ibv_qp_attr, min_rnr_timer);
SHOAL_SAME_PLACE(QueuePairAttributes, rnr_retries, ibv_qp_attr, rnr_retry);
SHOAL_SAME_PLACE(AddressVector, destination_lid, ibv_ah_attr, dlid);
SHOAL_SAME_PLACE(AddressVector, is_global, ibv_ah_attr, is_global);
SHOAL_SAME_PLACE(AddressVector, port, ibv_ah_attr, port_num);
SHOAL_SAME_PLACE(GlobalRoute, source_gid_index, ibv_global_route, sgid_index);
SHOAL_SAME_PLACE(GlobalRoute, hop_limit, ibv_global_route, hop_limit);
SHOAL_SAME_PLACE(SendRequest, opcode, ibv_send_wr, opcode);
SHOAL_SAME_PLACE(SendRequest, flags, ibv_send_wr, send_flags);
SHOAL_SAME_PLACE(ReceiveRequest, piece_count, ibv_recv_wr, num_sge);
SHOAL_SAME_PLACE(Completion, status, ibv_wc, status);
SHOAL_SAME_PLACE(Completion, opcode, ibv_wc, opcode);
SHOAL_SAME_PLACE(Completion, byte_count, ibv_wc, byte_len);
SHOAL_SAME_PLACE(Completion, queue_pair_number, ibv_wc, qp_num);
SHOAL_SAME_PLACE(ContextOperations, poll_completions, ibv_context_ops, poll_cq);
SHOAL_SAME_PLACE(ContextOperations, post_send, ibv_context_ops, post_send);
SHOAL_SAME_PLACE(ContextOperations, post_receive, ibv_context_ops, post_recv);
SHOAL_SAME_PLACE(Context, operations, ibv_context, ops);

static_assert(static_cast<int>(PortState::active) == IBV_PORT_ACTIVE);
static_assert(static_cast<int>(Mtu::bytes_1024) == IBV_MTU_1024);
static_assert(static_cast<int>(QueuePairType::rc) == IBV_QPT_RC &&
              static_cast<int>(QueuePairType::uc) == IBV_QPT_UC);
static_assert(static_cast<int>(QueuePairState::init) == IBV_QPS_INIT);
static_assert(static_cast<int>(QueuePairState::rtr) == IBV_QPS_RTR);
static_assert(static_cast<int>(QueuePairState::rts) == IBV_QPS_RTS);
static_assert(static_cast<int>(QueuePairState::error) == IBV_QPS_ERR);
static_assert(kAccessLocalWrite == IBV_ACCESS_LOCAL_WRITE && kAccessRemoteWrite == IBV_ACCESS_REMOTE_WRITE &&
              kAccessRemoteRead == IBV_ACCESS_REMOTE_READ);
static_assert(kSetState == IBV_QP_STATE && kSetAccess == IBV_QP_ACCESS_FLAGS && kSetPort == IBV_QP_PORT);
static_assert(kSetPkeyIndex == IBV_QP_PKEY_INDEX && kSetPath == IBV_QP_AV && kSetPathMtu == IBV_QP_PATH_MTU);
static_assert(kSetTimeout == IBV_QP_TIMEOUT && kSetRetries == IBV_QP_RETRY_CNT);
static_assert(kSetRnrRetries == IBV_QP_RNR_RETRY && kSetReceivePsn == IBV_QP_RQ_PSN);
static_assert(kSetMaxReads == IBV_QP_MAX_QP_RD_ATOMIC && kSetMinRnrTimer == IBV_QP_MIN_RNR_TIMER);
static_assert(kSetSendPsn == IBV_QP_SQ_PSN && kSetMaxDestinationReads == IBV_QP_MAX_DEST_RD_ATOMIC);
static_assert(kSetDestination == IBV_QP_DEST_QPN);
static_assert(kOpcodeSend == IBV_WR_SEND && kSendSignaled == IBV_SEND_SIGNALED);
static_assert(kCompletedSend == IBV_WC_SEND && kCompletedReceive == IBV_WC_RECV);
static_assert(static_cast<int>(CompletionStatus::local_length) == IBV_WC_LOC_LEN_ERR);
static_assert(static_cast<int>(CompletionStatus::local_protection) == IBV_WC_LOC_PROT_ERR);
static_assert(static_cast<int>(CompletionStatus::flushed) == IBV_WC_WR_FLUSH_ERR);
static_assert(static_cast<int>(CompletionStatus::remote_invalid_request) == IBV_WC_REM_INV_REQ_ERR);
static_assert(static_cast<int>(CompletionStatus::retries_exceeded) == IBV_WC_RETRY_EXC_ERR);
static_assert(static_cast<int>(CompletionStatus::rnr_retries_exceeded) == IBV_WC_RNR_RETRY_EXC_ERR);

}  // namespace
}  // namespace shoal::link::verbs
#endif
