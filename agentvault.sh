# shellcheck shell=bash
#
# agentvault.sh: the vault's HTTP API as shell functions. Needs bash (3.2 or
# newer), curl (7.55 or newer) and jq (1.6 or newer).
#
#   source agentvault.sh
#   TOKEN=$(agentvault_token github github:repos:read)
#   agentvault_call "$TOKEN" github repo.get '{"owner":"O","repo":"R"}' | jq .full_name
#
# It promises:
#   - Tokens are never in a process's arguments or environment: they reach curl
#     and jq through pipes. They are in no file and on no terminal.
#   - Sourcing defines functions and nothing else: no variable, no shell option.
#     Every public function is a subshell, so the caller's own stay as they are.
#   - Exit status 0 for success, 1 for a refusal or an error, 2 for wrong usage.
#     Standard output holds the answer; what went wrong goes to standard error
#     as "agentvault: CODE: detail", then "hint: ..." where there is a next step.

if [ -z "${BASH_VERSION:-}" ]; then
	echo 'agentvault: agentvault.sh can only be sourced by bash' >&2
	# shellcheck disable=SC2317 # exit is for shells in which return fails here
	return 1 2>/dev/null || exit 1
fi

# --- where this file is -------------------------------------------------------

# _agentvault_locate FILE prints the directory of FILE with every link resolved.
# It does by hand what "readlink -f" does, which macOS long did not have.
_agentvault_locate() {
	local av_file=$1 av_link
	case $av_file in */*) ;; *) av_file=./$av_file ;; esac
	while [ -L "$av_file" ]; do
		av_link=$(command readlink "$av_file") || return 1
		case $av_link in
		/*) av_file=$av_link ;;
		*) av_file=${av_file%/*}/$av_link ;;
		esac
	done
	CDPATH='' builtin cd -P -- "${av_file%/*}/" >/dev/null && builtin pwd -P
}

# _agentvault_home prints the directory found when the file was read, before the
# caller could change directory. A function, because a variable would be one
# more name in the caller's shell; %q quotes the path for it.
eval "$(printf '_agentvault_home() { printf "%%s\\n" %q; }' "$(_agentvault_locate "${BASH_SOURCE[0]}")")"

# --- beginnings and endings ---------------------------------------------------

# _agentvault_enter makes a subshell independent of its caller's settings. Every
# public function starts with it. allexport would put tokens into the
# environment of curl, xtrace onto standard error.
_agentvault_enter() {
	{ set +xvaefuC; } 2>/dev/null
	set -o pipefail
	trap - ERR DEBUG RETURN
	# Only this shell needs it, and no program that is started from here.
	export -n AGENTVAULT_AGENT_KEY
	shopt -u nocasematch
	IFS=$' \t\n'
	umask 077
	# A name that the caller exported would stay exported with a token in it.
	# shellcheck disable=SC2086 # names, and perhaps none
	unset -v ${!av_@}
	local av_program
	for av_program in curl jq; do
		if ! command -v "$av_program" >/dev/null 2>&1; then
			_agentvault_fail PROGRAM_MISSING "$av_program is not installed" \
				"install $av_program and put it in PATH"
			return 1
		fi
	done
}

# _agentvault_fail CODE DETAIL [HINT]
_agentvault_fail() {
	printf 'agentvault: %s: %s\n' "$1" "$2" >&2
	if [ -n "${3:-}" ]; then printf 'hint: %s\n' "$3" >&2; fi
	return 1
}

# _agentvault_misuse DETAIL
_agentvault_misuse() {
	printf 'agentvault: %s\nhint: agentvault help\n' "$1" >&2
	return 2
}

_agentvault_usage() {
	cat <<'USAGE'
usage: agentvault health
       agentvault services
       agentvault token <service> <scope>...
       agentvault call <service> <action> [--token <token>|-] [--json <params>]
       agentvault delegate [--token <token>|-] [--json <fields>]
       agentvault introspect [--token <token>|-]
       agentvault revoke [--agent <id>] [--session <id>] [--task <id>]
                         [--token <id>|<token>|-] [--reason <text>]
       agentvault audit [--limit <n>] [--event <event>] [--agent <id>] [--before <seq>]

call reads its token from standard input unless --token gives one:

  agentvault token github github:repos:read |
    agentvault call github repo.get --json '{"owner":"O","repo":"R"}'

delegate prints a token that may do no more than the one it is given:

  agentvault delegate --json '{"params":{"owner":"O"},"maxCalls":5,"ttl":60}'

environment:
  VAULT_URL               default http://127.0.0.1:8787
  VAULT_ADMIN_TOKEN       for services; else from $AGENTVAULT_DIR/.env, else from
                          admin.token in the vault's data directory
  VAULT_DATA_DIR          default $AGENTVAULT_DIR/data
  AGENTVAULT_DIR          default: the directory of this program
  AGENTVAULT_AGENT_ID     default main, or whose the key is
  AGENTVAULT_AGENT_KEY    the agent's key (cva_...) or JWT, where the vault wants one
  AGENTVAULT_TTL          life of a token in seconds, default 300
  AGENTVAULT_SESSION_ID   optional, as is AGENTVAULT_TASK_ID
  AGENTVAULT_CURL_CONFIG  optional: a curl configuration file, for a vault that
                          wants a client certificate or a password

exit status: 0 success, 1 refused or failed, 2 wrong usage
USAGE
}

_agentvault_trim() {
	local av_text=$1
	av_text=${av_text#"${av_text%%[![:space:]]*}"}
	av_text=${av_text%"${av_text##*[![:space:]]}"}
	printf '%s' "$av_text"
}

# _agentvault_token_from_stdin prints the first line of standard input.
_agentvault_token_from_stdin() {
	local av_token=''
	IFS= read -r av_token || true # a last line without a newline counts
	av_token=$(_agentvault_trim "$av_token")
	if [ -z "$av_token" ]; then
		_agentvault_fail TOKEN_REQUIRED 'there is no token on standard input' \
			'pipe one from "agentvault token <service> <scope>...", or give --token'
		return 1
	fi
	printf '%s' "$av_token"
}

# _agentvault_given_token prints the token that a function was given.
_agentvault_given_token() {
	case $1 in
	-) _agentvault_token_from_stdin ;;
	'')
		_agentvault_fail TOKEN_REQUIRED 'the token is empty' \
			'get one with agentvault_token SERVICE SCOPE...'
		;;
	*) printf '%s' "$1" ;;
	esac
}

# _agentvault_is_object reports whether a text is one JSON object.
_agentvault_is_object() {
	printf '%s' "$1" | command jq -es 'length == 1 and (.[0] | type == "object")' >/dev/null 2>&1
}

# --- the administrator's token ------------------------------------------------

# _agentvault_env_file FILE NAME prints what FILE sets NAME to; the last setting
# counts. The file is read as dotenv files are, never run. A quoted value may
# have several lines.
_agentvault_env_file() {
	local av_line av_key av_rest av_part av_value av_quote av_found=''
	if [ ! -f "$1" ] || [ ! -r "$1" ]; then return 0; fi
	while IFS= read -r av_line || [ -n "$av_line" ]; do
		av_line=$(_agentvault_trim "$av_line")
		case $av_line in
		'#'*) continue ;;
		?*=*) ;;
		*) continue ;;
		esac
		av_key=$(_agentvault_trim "${av_line%%=*}")
		av_key=$(_agentvault_trim "${av_key#export }")
		av_rest=$(_agentvault_trim "${av_line#*=}")
		case $av_rest in
		\"* | \'*)
			av_quote=${av_rest:0:1} av_rest=${av_rest:1} av_value=''
			while :; do
				case $av_rest in
				*"$av_quote"*)
					av_part=${av_rest%%"$av_quote"*}
					av_rest=${av_rest#*"$av_quote"}
					case $av_part in
					*\\) av_value=$av_value${av_part%?}$av_quote ;;
					*)
						av_value=$av_value$av_part
						break
						;;
					esac
					;;
				*)
					if ! IFS= read -r av_line && [ -z "$av_line" ]; then
						av_value=$av_value$av_rest
						break
					fi
					av_rest=$av_rest$'\n'${av_line%$'\r'}
					;;
				esac
			done
			;;
		*) av_value=$(_agentvault_trim "${av_rest%%#*}") ;;
		esac
		if [ "$av_key" = "$2" ]; then av_found=$av_value; fi
	done <"$1"
	printf '%s' "$av_found"
}

# _agentvault_admin_token prints the token of the administrator: what is
# configured (environment, then .env) before what the vault generated, as the
# vault itself chooses.
_agentvault_admin_token() {
	local av_dir av_data av_file av_token
	av_dir=${AGENTVAULT_DIR:-$(_agentvault_home)}
	av_data=${VAULT_DATA_DIR:-}
	if [ -z "$av_data" ]; then
		av_data=$(_agentvault_env_file "$av_dir/.env" VAULT_DATA_DIR)
		case $av_data in
		'') av_data=$av_dir/data ;;
		/*) ;;
		*) av_data=$av_dir/$av_data ;;
		esac
	fi
	av_file=$av_data/admin.token
	av_token=${VAULT_ADMIN_TOKEN:-}
	if [ -z "$av_token" ]; then
		av_token=$(_agentvault_env_file "$av_dir/.env" VAULT_ADMIN_TOKEN)
	fi
	if [ -z "$av_token" ] && [ -f "$av_file" ]; then
		if [ ! -r "$av_file" ]; then
			_agentvault_fail ADMIN_TOKEN_UNREADABLE "$av_file cannot be read by $(id -un)" \
				'run this as the user who runs the vault, or set VAULT_ADMIN_TOKEN'
			return 1
		fi
		av_token=$(cat -- "$av_file")
	fi
	av_token=$(_agentvault_trim "$av_token")
	case $av_token in
	'')
		_agentvault_fail ADMIN_TOKEN_REQUIRED \
			"no VAULT_ADMIN_TOKEN in the environment or in $av_dir/.env, and no $av_file" \
			'start the vault once, or point VAULT_DATA_DIR at its data directory'
		return 1
		;;
	*[[:cntrl:]]*)
		_agentvault_fail ADMIN_TOKEN_INVALID 'the admin token has a control character in it'
		return 1
		;;
	esac
	printf '%s' "$av_token"
}

# --- one request --------------------------------------------------------------

# _agentvault_base prints the vault's URL without a slash at its end.
_agentvault_base() {
	local av_url=${VAULT_URL:-http://127.0.0.1:8787}
	while [ "$av_url" != "${av_url%/}" ]; do av_url=${av_url%/}; done
	case $av_url in
	*[[:space:][:cntrl:]]* | *[?#\\]*) ;;
	http://*@* | https://*@*)
		# It would be in curl's arguments, for everyone on the machine to see.
		_agentvault_misuse 'VAULT_URL may not hold a user or password: use AGENTVAULT_CURL_CONFIG'
		return 2
		;;
	http://?* | https://?*)
		printf '%s' "$av_url"
		return 0
		;;
	esac
	_agentvault_misuse 'VAULT_URL must be like http://127.0.0.1:8787'
}

# _agentvault_is_loopback URL
_agentvault_is_loopback() {
	local av_host=${1#*://}
	av_host=${av_host%%/*}
	case $av_host in
	'['*) av_host=${av_host#'['} av_host=${av_host%%']'*} ;;
	*) av_host=${av_host%%:*} ;;
	esac
	case $av_host in
	127.*[!0-9.]*) return 1 ;;
	127.* | ::1 | [Ll][Oo][Cc][Aa][Ll][Hh][Oo][Ss][Tt] | *.localhost) return 0 ;;
	esac
	return 1
}

# _agentvault_request KIND PATH CURL-ARGUMENT... sends one request and writes
# the answer's body to standard output. KIND "api" takes every status but 2xx
# for a refusal; "call" passes an upstream's own error on. Standard input
# belongs to curl: secrets come from there.
#
# Whether a body is an answer or a refusal stands in its headers, which must
# therefore be known before its first byte is passed on. curl writes them, and
# what it has to say itself, into a second pipe (descriptors 4 and 5), so that
# the body can be streamed and trailers do not end up in it.
_agentvault_request() {
	local av_kind=$1 av_path=$2 av_url av_dir
	shift 2
	av_url=$(_agentvault_base) || return
	if _agentvault_is_loopback "$av_url"; then
		# Only here: the option takes the place of the user's own NO_PROXY.
		set -- --noproxy '*' "$@"
	fi
	if [ "$av_kind" != call ]; then set -- --max-time 60 "$@"; fi
	if [ -n "${AGENTVAULT_CURL_CONFIG:-}" ]; then
		set -- --config "$AGENTVAULT_CURL_CONFIG" "$@"
	fi

	av_dir=$(command mktemp -d "${TMPDIR:-/tmp}/agentvault.XXXXXX") || return 1
	# Opened for both first, so that neither of the other two waits.
	# shellcheck disable=SC2094 # two ends of one pipe
	if ! { command mkfifo "$av_dir/pipe" && exec 3<>"$av_dir/pipe" &&
		exec 4<"$av_dir/pipe" 5>"$av_dir/pipe" 3>&-; }; then
		command rm -rf -- "$av_dir"
		return 1
	fi
	command rm -rf -- "$av_dir"

	{
		# -q: a user's .curlrc could follow redirects or print headers.
		# Expect: would make curl wait for a 100 before a long body.
		command curl -q --silent --show-error --globoff --proto '=http,https' \
			--connect-timeout 10 --suppress-connect-headers --dump-header /dev/fd/5 \
			-H 'Content-Type: application/json' -H 'Expect:' \
			"$@" --url "$av_url$av_path" 2>&5 4<&-
		printf '\nagentvault-exit %s\n' "$?" >&5
	} | _agentvault_receive "$av_kind" "$av_url" 5>&-
}

# _agentvault_as_agent is _agentvault_request with the agent's key, if there is
# one. The key goes through a pipe of its own: the body has standard input.
_agentvault_as_agent() {
	local av_key
	av_key=$(_agentvault_trim "${AGENTVAULT_AGENT_KEY:-}")
	case $av_key in
	'') _agentvault_request "$@" ;;
	*[!0-9A-Za-z_.-]*) _agentvault_misuse 'AGENTVAULT_AGENT_KEY is not a key of an agent' ;;
	*) _agentvault_request "$1" "$2" -H @<(printf 'Authorization: Bearer %s\n' "$av_key") "${@:3}" ;;
	esac
}

# _agentvault_receive KIND URL reads headers from descriptor 4 and the body from
# standard input, and decides where the body goes.
_agentvault_receive() {
	local av_kind=$1 av_url=$2 av_line av_status='' av_code='' av_next='' av_exit='' av_said=''
	shopt -s nocasematch # header names; this is the last process of a pipeline
	while IFS= read -r av_line <&4; do
		av_line=${av_line%$'\r'}
		case $av_line in
		HTTP/*) # a 100 or 103 comes before the real one
			av_status=${av_line#* }
			av_status=${av_status%% *}
			av_code='' av_next=''
			;;
		vault-error:*) av_code=$(_agentvault_trim "${av_line#*:}") ;;
		vault-audit-next:*) av_next=$(_agentvault_trim "${av_line#*:}") ;;
		'curl: '*) av_said=$av_line ;;
		'agentvault-exit '*)
			av_exit=${av_line#* }
			break
			;;
		'') case $av_status in '' | 1*) ;; *) break ;; esac ;;
		esac
	done

	if [ -z "$av_exit" ]; then
		if [ -n "$av_code" ]; then
			_agentvault_refusal "$av_code" "the vault answered $av_status"
		else
			case $av_kind:$av_status in
			call:* | *:2??) command cat || return ;;
			*) _agentvault_refusal "HTTP_$av_status" "$av_url answered $av_status" ;;
			esac
		fi
		# Trailers, and curl's complaint if the answer broke off. Everything is
		# there by now; the limit is for a curl that was killed.
		while IFS= read -r -t 10 av_line <&4; do
			case $av_line in
			'curl: '*) av_said=$av_line ;;
			'agentvault-exit '*)
				av_exit=${av_line#* }
				break
				;;
			esac
		done
		if [ "$av_exit" = 0 ]; then
			if [ -n "$av_code" ]; then return 1; fi
			case $av_kind:$av_status in
			*:2??) ;;
			call:*)
				_agentvault_fail UPSTREAM_STATUS "the service answered with status $av_status"
				return
				;;
			*) return 1 ;;
			esac
			if [ -n "$av_next" ]; then
				printf 'hint: the search stopped at a bound; for what is older add --before %s\n' "$av_next" >&2
			fi
			return 0
		fi
		_agentvault_fail ANSWER_INCOMPLETE \
			"the answer of $av_url broke off (${av_said:-curl exit status ${av_exit:-unknown}})"
		return
	fi
	_agentvault_fail VAULT_UNREACHABLE \
		"no answer from $av_url (${av_said:-curl exit status $av_exit})" \
		'is the vault running there? VAULT_URL says where to look'
}

# _agentvault_refusal CODE DETAIL reports the problem document on standard
# input. CODE and DETAIL stand in for what it lacks. Control characters are
# dropped: a detail can quote what an agent sent, and this may be a terminal.
_agentvault_refusal() {
	AV_CODE=$1 AV_DETAIL=$2 command jq -Rrs '
		def plain: explode | map(if . < 32 or (. >= 127 and . < 160) then 32 else . end) | implode;
		def text: if type == "string" and . != "" then plain else null end;
		(try fromjson catch null) | if type == "object" then . else {} end
		| "agentvault: \((.error | text) // (env.AV_CODE | plain)): \((.detail | text) // (.title | text) // env.AV_DETAIL)",
		  ((.hint | text) // empty | "hint: \(.)")
	' >&2
}

# _agentvault_show ANSWER JQ-ARGUMENT... prints a part of an answer.
_agentvault_show() {
	local av_answer=$1
	shift
	printf '%s' "$av_answer" | command jq "$@" 2>/dev/null ||
		_agentvault_fail ANSWER_INVALID 'the answer is not the one of a vault' 'does VAULT_URL lead to the vault?'
}

# --- the public functions -----------------------------------------------------

# agentvault_health prints {"ok":true} if the vault serves calls.
agentvault_health() (
	_agentvault_enter || exit
	if [ $# -ne 0 ]; then
		_agentvault_misuse 'health takes no arguments'
		exit
	fi
	av_answer=$(_agentvault_request api /health </dev/null) || exit
	_agentvault_show "$av_answer" -ce 'select(.ok == true)'
)

# agentvault_services prints the services, a JSON array. It needs the
# administrator's token.
agentvault_services() (
	_agentvault_enter || exit
	if [ $# -ne 0 ]; then
		_agentvault_misuse 'services takes no arguments'
		exit
	fi
	av_admin=$(_agentvault_admin_token) || exit
	av_answer=$(printf 'Authorization: Bearer %s\n' "$av_admin" |
		_agentvault_request api /vault.admin.listServices -H @- --data-binary '{}') || exit
	_agentvault_show "$av_answer" -e '.services | arrays'
)

# agentvault_token SERVICE SCOPE... prints a token and nothing else.
agentvault_token() (
	_agentvault_enter || exit
	if [ $# -lt 2 ]; then
		_agentvault_misuse 'token needs a service and at least one scope'
		exit
	fi
	av_ttl=${AGENTVAULT_TTL:-300}
	case $av_ttl in
	*[!0-9]*)
		_agentvault_misuse 'AGENTVAULT_TTL must be a number of seconds'
		exit
		;;
	esac
	av_service=$1 av_main=main
	if [ -n "${AGENTVAULT_AGENT_KEY:-}" ]; then av_main=; fi # the key says who it is
	shift
	case $* in
	*$'\n'*)
		_agentvault_misuse 'a scope may not have a newline in it'
		exit
		;;
	esac
	av_answer=$(
		AV_SERVICE=$av_service AV_SCOPES=$(printf '%s\n' "$@") AV_TTL=$av_ttl \
			AV_AGENT=${AGENTVAULT_AGENT_ID:-$av_main} AV_SESSION=${AGENTVAULT_SESSION_ID:-} \
			AV_TASK=${AGENTVAULT_TASK_ID:-} command jq -nc '
			def given: with_entries(select(.value != ""));
			{service: env.AV_SERVICE, scope: (env.AV_SCOPES | split("\n")), ttl: (env.AV_TTL | tonumber)}
			+ ({agentId: env.AV_AGENT} | given) + {tool: "agentvault"}
			+ ({sessionId: env.AV_SESSION, taskId: env.AV_TASK} | given)
		' | _agentvault_as_agent api /vault.issueToken --data-binary @-
	) || exit
	_agentvault_show "$av_answer" -er '.token | strings'
)

# agentvault_call TOKEN SERVICE ACTION [JSON] makes a call and streams the
# service's answer. TOKEN may be "-", for standard input.
agentvault_call() (
	_agentvault_enter || exit
	if [ $# -lt 3 ] || [ $# -gt 4 ]; then
		_agentvault_misuse 'call needs a token, a service and an action'
		exit
	fi
	av_token=$1 av_service=$2 av_action=$3 av_params=${4:-}
	if [ -z "$av_params" ]; then av_params='{}'; fi
	if ! _agentvault_is_object "$av_params"; then
		_agentvault_misuse 'the parameters of a call must be one JSON object'
		exit
	fi
	av_token=$(_agentvault_given_token "$av_token") || exit
	av_body=$(printf '%s' "$av_token" | AV_SERVICE=$av_service AV_ACTION=$av_action \
		command jq -Rsc '{token: ., service: env.AV_SERVICE, action: env.AV_ACTION}') || exit
	# The parameters are spliced in as they are: jq would round large numbers.
	# Accept: is left out so that the service's own default applies.
	printf '%s,"params":%s}' "${av_body%?}" "$av_params" |
		_agentvault_request call /vault.call --no-buffer -H 'Accept:' --data-binary @-
)

# agentvault_delegate TOKEN [JSON] prints a child of a token: one that may do no
# more. JSON is an object with what is to be less: scope, actions, params, ttl,
# maxCalls, maxBytes, oneTime, agentId, taskId. TOKEN may be "-", for standard
# input.
agentvault_delegate() (
	_agentvault_enter || exit
	if [ $# -lt 1 ] || [ $# -gt 2 ]; then
		_agentvault_misuse 'delegate needs a token, and takes an object of what is to be less'
		exit
	fi
	av_token=$1 av_fields=${2:-}
	if [ -z "$av_fields" ]; then av_fields='{}'; fi
	if ! _agentvault_is_object "$av_fields"; then
		_agentvault_misuse 'what is to be less must be one JSON object'
		exit
	fi
	av_token=$(_agentvault_given_token "$av_token") || exit
	av_answer=$(printf '%s' "$av_token" | AV_FIELDS=$av_fields \
		command jq -Rsc '(env.AV_FIELDS | fromjson) + {token: .}' |
		_agentvault_as_agent api /vault.delegateToken --data-binary @-) || exit
	_agentvault_show "$av_answer" -er '.token | strings'
)

# agentvault_introspect TOKEN prints what a token is and what is left of it.
# TOKEN may be "-", for standard input.
agentvault_introspect() (
	_agentvault_enter || exit
	if [ $# -ne 1 ]; then
		_agentvault_misuse 'introspect needs a token'
		exit
	fi
	av_token=$1
	av_token=$(_agentvault_given_token "$av_token") || exit
	av_answer=$(printf '%s' "$av_token" | command jq -Rsc '{token: .}' |
		_agentvault_as_agent api /vault.introspectToken --data-binary @-) || exit
	_agentvault_show "$av_answer" -e 'select(.active | type == "boolean")'
)

# agentvault_revoke [--agent ID] [--session ID] [--task ID] [--token ID]
# [--reason TEXT] ends tokens at once. --token takes the token's id, or the token
# itself, or "-" to read it from standard input; only the id is sent.
agentvault_revoke() (
	_agentvault_enter || exit
	av_agent='' av_session='' av_task='' av_token='' av_reason=''
	while [ $# -gt 0 ]; do
		case $1 in
		--agent=* | --session=* | --task=* | --token=* | --reason=*)
			set -- "${1%%=*}" "${1#*=}" "${@:2}"
			;;
		--agent | --session | --task | --token | --reason) ;;
		*)
			_agentvault_misuse 'revoke takes --agent, --session, --task, --token and --reason'
			exit
			;;
		esac
		# An empty id is a variable that was not set, and no wish to revoke less.
		if [ $# -lt 2 ] || { [ -z "$2" ] && [ "$1" != --reason ]; }; then
			_agentvault_misuse "$1 needs a value"
			exit
		fi
		case $1 in
		--agent) av_agent=$2 ;;
		--session) av_session=$2 ;;
		--task) av_task=$2 ;;
		--token) av_token=$2 ;;
		--reason) av_reason=$2 ;;
		esac
		shift 2
	done
	if [ -z "$av_agent$av_session$av_task$av_token" ]; then
		_agentvault_misuse 'revoke needs --agent, --session, --task or --token'
		exit
	fi
	if [ "$av_token" = - ]; then
		av_token=$(_agentvault_token_from_stdin) || exit
	fi
	case $av_token in
	*.*.*)
		av_token=${av_token#*.}
		if ! av_token=$(printf '%s' "${av_token%%.*}" | command jq -Rrse '
			split("-") | join("+") | split("_") | join("/")
			| . + ("===="[:(4 - length % 4) % 4]) | @base64d | fromjson | .jti | strings
		' 2>/dev/null); then
			_agentvault_fail TOKEN_INVALID 'the token to revoke has no readable id'
			exit
		fi
		;;
	esac
	av_answer=$(
		AV_AGENT=$av_agent AV_SESSION=$av_session AV_TASK=$av_task AV_TOKEN=$av_token \
			AV_REASON=$av_reason command jq -nc '
			{agentId: env.AV_AGENT, sessionId: env.AV_SESSION, taskId: env.AV_TASK,
			 tokenId: env.AV_TOKEN, reason: env.AV_REASON} | with_entries(select(.value != ""))
		' | _agentvault_as_agent api /vault.revoke --data-binary @-
	) || exit
	_agentvault_show "$av_answer" -ce 'objects'
)

# agentvault_audit [--limit N] [--event EVENT] [--agent ID] [--before SEQ] prints
# audit records, the oldest first, one JSON object a line.
agentvault_audit() (
	_agentvault_enter || exit
	av_limit='' av_event='' av_agent='' av_before=''
	while [ $# -gt 0 ]; do
		case $1 in
		--limit=* | --event=* | --agent=* | --before=*)
			set -- "${1%%=*}" "${1#*=}" "${@:2}"
			;;
		--limit | --event | --agent | --before) ;;
		*)
			_agentvault_misuse 'audit takes --limit, --event, --agent and --before'
			exit
			;;
		esac
		if [ $# -lt 2 ] || [ -z "$2" ]; then
			_agentvault_misuse "$1 needs a value"
			exit
		fi
		case $1:$2 in
		--limit:*[!0-9]* | --before:*[!0-9]*)
			_agentvault_misuse "$1 must be a number"
			exit
			;;
		--limit:*) av_limit=$2 ;;
		--event:*) av_event=$2 ;;
		--agent:*) av_agent=$2 ;;
		--before:*) av_before=$2 ;;
		esac
		shift 2
	done
	av_answer=$(
		AV_LIMIT=$av_limit AV_EVENT=$av_event AV_AGENT=$av_agent AV_BEFORE=$av_before \
			command jq -nc '
			def given: with_entries(select(.value != ""));
			({limit: env.AV_LIMIT, before: env.AV_BEFORE} | given | map_values(tonumber))
			+ ({event: env.AV_EVENT, agentId: env.AV_AGENT} | given | if . == {} then {} else {filters: .} end)
		' | _agentvault_as_agent api /vault.audit.query --data-binary @-
	) || exit
	# Not -e: an empty array is an answer, with nothing to print.
	_agentvault_show "$av_answer" -c 'if type == "array" then .[] else error("no array") end'
)

# agentvault_main VERB ARGUMENT... is the command line.
agentvault_main() (
	_agentvault_enter || exit
	av_verb=${1:-}
	if [ $# -gt 0 ]; then shift; fi
	case $av_verb in
	health) agentvault_health "$@" ;;
	services) agentvault_services "$@" ;;
	token) agentvault_token "$@" ;;
	call) _agentvault_main_call "$@" ;;
	delegate) _agentvault_main_token delegate "$@" ;;
	introspect) _agentvault_main_token introspect "$@" ;;
	revoke) agentvault_revoke "$@" ;;
	audit) agentvault_audit "$@" ;;
	help | -h | --help) _agentvault_usage ;;
	'')
		_agentvault_usage >&2
		exit 2
		;;
	*) _agentvault_misuse "there is no command '$av_verb'" ;;
	esac
)

# _agentvault_main_call SERVICE ACTION [--token TOKEN] [--json JSON]
_agentvault_main_call() (
	av_service='' av_action='' av_token='' av_json=''
	while [ $# -gt 0 ]; do
		case $1 in
		--token=* | --json=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
		esac
		case $1 in
		--token | --json)
			if [ $# -lt 2 ] || [ -z "$2" ]; then
				_agentvault_misuse "$1 needs a value"
				exit
			fi
			if [ "$1" = --token ]; then av_token=$2; else av_json=$2; fi
			shift 2
			continue
			;;
		-*)
			_agentvault_misuse 'call takes --token and --json'
			exit
			;;
		esac
		if [ -z "$av_service" ]; then
			av_service=$1
		elif [ -z "$av_action" ]; then
			av_action=$1
		else
			_agentvault_misuse 'call takes one service and one action; parameters go into --json'
			exit
		fi
		shift
	done
	if [ -z "$av_service" ] || [ -z "$av_action" ]; then
		_agentvault_misuse 'call needs a service and an action'
		exit
	fi
	if [ -z "$av_token" ]; then
		if [ -t 0 ]; then
			_agentvault_misuse 'call needs a token: pipe one in, or give --token'
			exit
		fi
		av_token=-
	fi
	agentvault_call "$av_token" "$av_service" "$av_action" "$av_json"
)

# _agentvault_main_token VERB [--token TOKEN] [--json JSON], of delegate and
# introspect
_agentvault_main_token() (
	av_verb=$1 av_token='' av_json=''
	shift
	while [ $# -gt 0 ]; do
		case $1 in
		--token=* | --json=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
		esac
		case $av_verb$1 in
		delegate--token | introspect--token | delegate--json) ;;
		delegate*)
			_agentvault_misuse 'delegate takes --token and --json'
			exit
			;;
		*)
			_agentvault_misuse 'introspect takes --token'
			exit
			;;
		esac
		if [ $# -lt 2 ] || [ -z "$2" ]; then
			_agentvault_misuse "$1 needs a value"
			exit
		fi
		if [ "$1" = --token ]; then av_token=$2; else av_json=$2; fi
		shift 2
	done
	if [ -z "$av_token" ]; then
		if [ -t 0 ]; then
			_agentvault_misuse "$av_verb needs a token: pipe one in, or give --token"
			exit
		fi
		av_token=-
	fi
	if [ "$av_verb" = introspect ]; then
		agentvault_introspect "$av_token"
	else
		agentvault_delegate "$av_token" "$av_json"
	fi
)
