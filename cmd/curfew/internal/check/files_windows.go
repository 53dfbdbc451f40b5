package check

import "golang.org/x/sys/windows"

// mayWrite returns why this process may not write a file, or make files in a folder.
func mayWrite(name string, _ bool) error {
	path, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return err
	}
	const access = windows.FILE_WRITE_DATA // of a folder: FILE_ADD_FILE, which has the same value
	h, err := windows.CreateFile(path, access, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE,
		nil, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS, 0) // without that flag no folder can be opened
	if err != nil {
		return err
	}
	return windows.CloseHandle(h)
}
