package keep

import (
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/fsnotify/fsnotify"
	_ "github.com/go-json-experiment/json"
	_ "github.com/golang-jwt/jwt/v5"
	_ "github.com/google/uuid"
	_ "github.com/klauspost/compress/zstd"
	_ "github.com/spf13/cobra"
	_ "github.com/tidwall/gjson"
	_ "github.com/tink-crypto/tink-go/v2/aead"
	_ "go.uber.org/goleak"
	_ "go.uber.org/zap"
	_ "golang.org/x/mod/sumdb/tlog"
	_ "golang.org/x/sys/unix"
	_ "golang.org/x/time/rate"
)
